"""Composite values of flags: ``ttft=1.0,tpot=0.1``, ``2:prefill,6:decode``, ``0,600``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from experiments.config_base import ConfigError, RoleName
from experiments.config_replay import MAX_CORE

_TARGETS = {"ttft": "ttft_s", "tpot": "tpot_s"}


def window(text: str) -> tuple[float, float]:
    """``START,END`` in seconds."""
    parts = text.split(",")
    if len(parts) != 2:
        raise ConfigError(f"--window: {text!r} is not START,END in seconds, e.g. 0,600")
    return _number("--window", parts[0]), _number("--window", parts[1])


def vocab(text: str) -> tuple[int, int]:
    """``FIRST:END`` in token ids."""
    first, _, end = text.partition(":")
    if not (_is_whole(first) and _is_whole(end)):
        raise ConfigError(f"--vocab: {text!r} is not FIRST:END, e.g. 1000:30000")
    return int(first), int(end)


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ConfigError(f"--extra-body: {text!r} is no JSON object, e.g. '{{\"top_k\": 1}}'")
    return content


def cores(text: str) -> tuple[int, ...]:
    """``0,2-3`` as core numbers."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not (_is_whole(first) and _is_whole(last or first)) or not int(first) <= int(last or first) <= MAX_CORE:
            raise ConfigError(f"--client-cores: {text!r} is not a list of cores, e.g. 0,2-3")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def slo(text: str) -> dict[str, Any]:
    """``ttft=S,tpot=S``, one or both; then, each after a slash, those of SLO classes: ``/CLASS:ttft=S,tpot=S``."""
    general, *others = text.split("/")
    classes = {}
    for part in others:
        name, _, targets = part.partition(":")
        if not name or not targets or name in classes:
            raise ConfigError(f"--slo: {part!r} is not allowed; write /CLASS:ttft=S,tpot=S, each class once")
        classes[name] = _pairs("--slo", targets, _TARGETS)
    return {**_pairs("--slo", general, _TARGETS), **({"classes": classes} if classes else {})}


def contention(text: str) -> dict[str, float]:
    """``prefill=GAMMA,decode=GAMMA``, one or both; the other keeps its default."""
    return _pairs("--contention", text, {"prefill": "gamma_prefill", "decode": "gamma_decode"})


def link(text: str) -> dict[str, Any]:
    """A link's name, or ``bandwidth=BYTES_PER_S,latency=S`` (one or both)."""
    if "=" not in text:
        return {"kind": text}
    return _pairs("--link", text, {"bandwidth": "bandwidth_bytes_per_s", "latency": "latency_s"})


def groups(text: str) -> tuple[dict[str, Any], ...]:
    """``8`` (colocated, unless --role says otherwise) or a mix such as ``2:prefill,6:decode``."""
    found = []
    for part in text.split(","):
        count, _, role = part.strip().partition(":")
        if not _is_whole(count):
            raise ConfigError(f"--instances: {text!r} is not N or N:ROLE,N:ROLE, e.g. 8 or 2:prefill,6:decode")
        found.append({"count": int(count), "role": role or "colocated"})
    return tuple(found)


def with_role(current: tuple[dict[str, Any], ...], role: str, instances: str | None) -> tuple[dict[str, Any], ...]:
    """Give the one group of instances its role."""
    if role not in get_args(RoleName):
        raise ConfigError(f"--role: {role!r} is not allowed; allowed: {', '.join(get_args(RoleName))}")
    if len(current) != 1 or ":" in (instances or ""):
        raise ConfigError(f"--role {role}: the instances have their roles already; write --instances N --role {role}")
    return ({**current[0], "role": role},)


def _pairs(flag: str, text: str, keys: Mapping[str, str]) -> dict[str, float]:
    form = ",".join(f"{key}=NUMBER" for key in keys)
    found: dict[str, float] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in keys:
            raise ConfigError(f"{flag}: {part!r} is not allowed; write {form}")
        if keys[key] in found:
            raise ConfigError(f"{flag}: {key} stands twice in {text!r}")
        found[keys[key]] = _number(flag, value)
    return found


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag}: {text!r} is not a number") from None
