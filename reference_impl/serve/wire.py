"""Typed values as plain ones that msgpack can carry, and back.

Named tuples and dataclasses travel as arrays of their fields in order; who reads them says which type is meant. What
does not fit that type is a :class:`WireError`: both ends of a channel run the same version, so it is a broken peer.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgpack

Build = Callable[[Any], Any]
T = TypeVar("T")


class WireError(ValueError):
    """Bytes that are no message of ours."""


def pack(value: object) -> bytes:
    """Bytes of a value made of named tuples, dataclasses, tuples, lists, mappings and scalars."""
    packed: bytes = msgpack.packb(value, default=_plain)
    return packed


def unpack(content: bytes | memoryview) -> Any:
    """The plain value in ``content``; arrays are tuples. Raises WireError."""
    try:
        return msgpack.unpackb(content, use_list=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"not a packed value: {error}") from error


def typed(kind: type[T], plain: Any) -> T:
    """``plain`` as a ``kind``. Raises WireError where it cannot be one."""
    try:
        build: Build | None = builder(cast(Hashable, kind))
        value: T = plain if build is None else build(plain)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise WireError(f"not a {kind.__name__}: {error}") from error
    return value


@cache
def builder(kind: Any) -> Build | None:
    """What makes a ``kind`` of a plain value; None: it is one already."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _optional([part for part in arguments if part is not type(None)])
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _many(tuple, builder(arguments[0]))
    if origin is tuple:
        return _record(_tuple_of, [builder(part) for part in arguments])
    if origin is list:
        return _many(list, builder(arguments[0]))
    if origin in (dict, Mapping):
        return _mapping(builder(arguments[1]))
    if origin is Literal or not isinstance(kind, type):
        return None
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _record(kind, [builder(hint) for hint in _hints(kind, kind._fields)])
    if is_dataclass(kind):
        return _record(kind, [builder(hint) for hint in _hints(kind, [field.name for field in fields(kind)])])
    return None


def _plain(value: object) -> object:
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, frozenset | set):
        return list(value)
    raise WireError(f"{type(value).__name__} cannot be sent (allowed: plain values, named tuples, dataclasses)")


def _hints(kind: type, names: Any) -> list[Any]:
    hints = get_type_hints(kind)
    return [hints[name] for name in names]


def _tuple_of(*values: Any) -> tuple[Any, ...]:
    return values


def _optional(kinds: list[Any]) -> Build | None:
    builders = [builder(kind) for kind in kinds]
    if not any(builders):
        return None
    assert len(kinds) == 1, f"{kinds} cannot be told apart on the wire"
    build = builders[0]
    return None if build is None else lambda plain: None if plain is None else build(plain)


def _many(container: type[Any], build: Build | None) -> Build | None:
    if build is None:
        return None if container is tuple else container
    return lambda plain: container([build(part) for part in plain])


def _mapping(build: Build | None) -> Build | None:
    return None if build is None else lambda plain: {key: build(value) for key, value in plain.items()}


def _record(kind: Callable[..., Any], builders: list[Build | None]) -> Build:
    size = len(builders)
    nested = [(place, build) for place, build in enumerate(builders) if build is not None]

    def build(plain: Any) -> Any:
        if len(plain) != size:
            raise WireError(f"{getattr(kind, '__name__', kind)} has {size} fields, got {len(plain)}")
        if not nested:
            return kind(*plain)
        values = list(plain)
        for place, part in nested:
            values[place] = part(values[place])
        return kind(*values)

    return build
