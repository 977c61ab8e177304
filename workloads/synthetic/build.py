"""Parts of a synthetic workload from plain values (YAML, command line), strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from workloads.errors import TraceError, shown

T = TypeVar("T")


def forms(kinds: Mapping[str, type[Any]]) -> list[str]:
    """How each kind is written, from its fields: ``gamma:rate_rps=..,cv=..``."""
    return [f"{kind}:{keys(part)}" for kind, part in kinds.items()]


def keys(part: type[Any]) -> str:
    """The keys of a part as text: ``trace=..; optional: rate_factor=1.0``, without what no ``key=value`` can say."""
    known = [entry for entry in fields(part) if not str(entry.type).startswith("Points")]
    needed = ",".join(f"{entry.name}=.." for entry in known if entry.default is MISSING)
    with_default = [entry for entry in known if entry.default is not MISSING]
    shown = ",".join(f"{entry.name}={'..' if entry.default is None else entry.default}" for entry in with_default)
    return f"{needed}; optional: {shown}" if shown else needed


def build_kind(where: str, kinds: Mapping[str, type[T]], value: object) -> T:
    """The part that ``value`` describes: a mapping with ``kind``, or a text ``kind:key=value,key=value``."""
    values = parse_text(where, value) if isinstance(value, str) else value
    if not isinstance(values, Mapping) or "kind" not in values:
        allowed = f"a mapping with kind, or a text kind:key=value, where kind is {', '.join(kinds)}"
        raise TraceError(f"{where}: {shown(value)} (allowed: {allowed})")
    kind = values["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise TraceError(f"{where}: kind {kind!r} (allowed: {', '.join(kinds)})")
    return build_plain(f"{where} {kind}", kinds[kind], {key: values[key] for key in values if key != "kind"})


def build_plain(where: str, part: type[T], value: object) -> T:
    """A dataclass from the values of its fields: a mapping, or a text ``key=value,key=value``."""
    values = _pairs(where, value) if isinstance(value, str) else value
    known: Any = fields(part)  # type: ignore[arg-type] # every kind is a dataclass, which type[T] cannot say
    needed = [entry.name for entry in known if entry.default is MISSING]
    check_keys(where, values, [entry.name for entry in known], needed)
    assert isinstance(values, Mapping)
    return part(**values)


def check_keys(
    where: str, values: object, known: list[str] | tuple[str, ...], needed: list[str] | tuple[str, ...]
) -> None:
    """Refuse what is not a mapping, keys that are not known, and needed ones that are missing."""
    if not isinstance(values, Mapping):
        raise TraceError(f"{where}: {shown(values)} (allowed: a mapping with {', '.join(known)})")
    for key in values:
        if key not in known:
            raise TraceError(f"{where}: unknown key {key!r} (allowed: {', '.join(known)})")
    missing = [key for key in needed if key not in values]
    if missing:
        raise TraceError(f"{where}: missing {', '.join(missing)} (keys: {', '.join(known)})")


def parse_text(where: str, text: str) -> dict[str, object]:
    """``kind:key=value,key=value`` as a mapping."""
    kind, _, rest = text.partition(":")
    return {"kind": kind, **_pairs(where, rest)}


def _pairs(where: str, text: str) -> dict[str, object]:
    pairs: dict[str, object] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or key in pairs:
            raise TraceError(f"{where}: {shown(pair)} (allowed: key=value, each key once)")
        pairs[key] = _value(value)
    return pairs


def _value(text: str) -> object:
    """An int, else a float, else the text."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
