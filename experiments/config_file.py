"""Configurations as YAML: read strictly, with errors that say file, key, value and what is allowed; written whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)
_ALLOWED = {
    "greater_than": "numbers above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "numbers below {lt:g}",
    "less_than_equal": "at most {le:.12g}",
    "finite_number": "finite numbers",
    "int_type": "whole numbers",
    "int_from_float": "whole numbers",
    "float_type": "numbers",
    "string_type": "text",
    "bool_type": "true or false",
    "literal_error": "{expected}",
    "too_short": "{min_length} or more entries",
    "too_long": "at most {max_length} entries",
    "tuple_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}
"""Pydantic's kinds of error in plain words: what is allowed."""


def load(path: str | os.PathLike[str], model: type[Model]) -> Model:
    """Read a configuration file. Raises ConfigError (one line) for anything that is not a valid ``model``."""
    return parse(model, read_mapping(path), source=os.fspath(path))


def read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The file's top-level mapping, unvalidated; an empty file is an empty mapping."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{os.fspath(path)}: cannot be read: {reason}") from error
    try:
        content = yaml.load(text, Loader=_unique_key_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{os.fspath(path)}{place}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{os.fspath(path)}: not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{os.fspath(path)}: expected keys and values at the top, found {_show(content)}")
    return content


def parse(
    model: type[Model],
    content: Mapping[str, Any],
    source: str | None,
    name_key: Callable[[Sequence[str | int]], str] | None = None,
) -> Model:
    """Validate ``content``. ``name_key`` says how a key path is called in errors (default: ``a.b[0].c``)."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first, *rest = sorted(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
        more = f"; further mistakes: {len(rest)}" if rest else ""
        where = f"{source}: " if source else ""
        raise ConfigError(f"{where}{_describe(model, first, name_key or key_path)}{more}") from None


def to_yaml(config: BaseModel) -> str:
    """The whole configuration, defaults included; loading it again gives an equal one."""
    import yaml

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def key_path(location: Sequence[str | int]) -> str:
    """``("fleet", "groups", 0, "count")`` as ``fleet.groups[0].count``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _describe(model: type[BaseModel], error: ErrorDetails, name_key: Callable[[Sequence[str | int]], str]) -> str:
    location, value = error["loc"], error["input"]
    key = name_key(location)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r} (value {_show(value)}); {_nearest(model, location)}"
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
        return f"{key}: {reason}" if key else reason
    allowed = _ALLOWED.get(error["type"])
    reason = allowed.format(**error.get("ctx", {})) if allowed else f"{error['msg'][0].lower()}{error['msg'][1:]}"
    return f"{key}: {_show(value)} is not allowed; allowed: {reason}"


def _nearest(model: type[BaseModel], location: Sequence[str | int]) -> str:
    import difflib

    allowed = sorted(_fields_at(model, location[:-1]))
    close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(allowed)}"


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Keys of the model nested at ``location``; list indices and union tags are passed over."""
    current = model
    for part in location:
        field = current.model_fields.get(str(part))
        if field is not None:
            current = _model_in(field.annotation) or current
    return list(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic model within a type such as ``tuple[Group, ...] | None``."""
    from typing import get_args

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _unique_key_loader() -> type[Any]:
    """PyYAML's safe loader keeps the last of two equal keys; this one refuses them."""
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[Hashable] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                wrong = "is no text" if not isinstance(key, Hashable) else "stands twice" if key in seen else None
                if wrong is not None:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} {wrong}", key_node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep)

    return UniqueKeyLoader
