"""A policy's parameters: the fields of its dataclass, read from text and checked.

``Annotated[float, Range(0, 4)]``, ``Annotated[str, Choice("a", "b")]`` or a plain ``int``, ``float``, ``bool`` or
``str``, each optionally ``| None``. Fields with ``init=False`` are the policy's own state and no parameters.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from policies.api import Choice, Range
from policies.docs import parameter_docs

Value = bool | int | float | str | None
TYPES: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "str"}


class ParameterError(ValueError):
    """A policy was given a parameter that it does not have, or a value that is not allowed."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a policy: what may be given, and the space that a tuner searches."""

    name: str
    type: str
    """``bool``, ``int``, ``float`` or ``str``."""
    optional: bool
    """Whether None (the text ``none``) is allowed too."""
    required: bool
    default: Value
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    doc: str = ""

    def allowed(self) -> str:
        """What may be given, in words: ``float in [0, 4] or none (default 1.0)``."""
        text = " | ".join(self.choices) if self.choices else self.type
        if self.low is not None and self.high is not None:
            text += f" in [{self.low:g}, {self.high:g}]"
        if self.optional:
            text += " or none"
        return text + (" (required)" if self.required else f" (default {to_text(self.default)})")

    def accept(self, value: object) -> Value:
        """The value in the parameter's type; raises ``ValueError`` (no message) where it is not allowed.

        Text is read as on the command line; anything else must have the type already (an int may stand for a float).
        """
        converted = self._from_text(value.strip()) if isinstance(value, str) else value
        if converted is None and self.optional:
            return None
        if self.type == "float" and type(converted) is int:
            converted = float(converted)
        if not isinstance(converted, bool | int | float | str) or TYPES.get(type(converted)) != self.type:
            raise ValueError
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ValueError
        if self.low is not None and self.high is not None and not self.low <= float(converted) <= self.high:
            raise ValueError
        if isinstance(converted, str) and (("," in converted) or (self.choices and converted not in self.choices)):
            raise ValueError
        return converted

    def _from_text(self, text: str) -> Value:
        if self.optional and text.lower() == "none":
            return None
        if self.type == "bool":
            return {"true": True, "false": False}.get(text.lower(), text)
        if self.type == "int":
            return int(text)
        return float(text) if self.type == "float" else text


def to_text(value: Value) -> str:
    """The text that :meth:`Parameter.accept` reads back as ``value``."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def parameters_of(cls: type) -> tuple[Parameter, ...]:
    """The parameters of a policy class, in the order of its fields; raises ``ParameterError`` for an odd class."""
    if not is_dataclass(cls):
        raise ParameterError(f"{cls.__module__}:{cls.__qualname__} is not a dataclass; decorate it with @dataclass")
    try:
        hints = get_type_hints(cls, include_extras=True)
    except Exception as error:  # an annotation is any expression of the user's
        raise ParameterError(
            f"{cls.__module__}:{cls.__qualname__}: an annotation cannot be read ({error}); "
            "import the names of its field types at module level"
        ) from error
    docs = parameter_docs(cls)
    return tuple(
        _parameter(cls, field, hints[field.name], docs.get(field.name, "")) for field in fields(cls) if field.init
    )


def _parameter(cls: type, field: Field[Any], hint: Any, doc: str) -> Parameter:
    base, marks = _unwrap(hint)
    optional = NoneType in get_args(base)
    if get_origin(base) in (Union, UnionType):
        rest = [part for part in get_args(base) if part is not NoneType]
        base, inner = _unwrap(rest[0]) if len(rest) == 1 else (base, ())
        marks = marks + inner
    if base not in TYPES:
        raise ParameterError(
            f"{cls.__module__}:{cls.__qualname__}: field {field.name} has type {hint}, which is no parameter type "
            f"({', '.join(TYPES.values())}, Annotated with Range or Choice, or | None); "
            "declare the policy's own state with field(init=False)"
        )
    span = next((mark for mark in marks if isinstance(mark, Range)), None)
    choice = next((mark for mark in marks if isinstance(mark, Choice)), None)
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return Parameter(
        name=field.name,
        type=TYPES[base],
        optional=optional,
        required=default is MISSING,
        default=None if default is MISSING else default,
        low=span.low if span else None,
        high=span.high if span else None,
        log=span.log if span else False,
        choices=choice.values if choice else (),
        doc=doc,
    )


def _unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """``Annotated[int, Range(1, 2)]`` -> (int, (Range(1, 2),)); any other hint -> (hint, ())."""
    if get_origin(hint) is Annotated:
        base, *marks = get_args(hint)
        return base, tuple(marks)
    return hint, ()
