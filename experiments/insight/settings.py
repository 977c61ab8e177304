"""Two runs' configurations, origins and figures side by side: only what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_VOLATILE = ("created_at", "wall_s", "cpu_s", "ready_s", "client_cpu_s", "outcome", "event_log")
"""Parts of a manifest that say when and how long, or repeat what the metrics say."""


def flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": [1]}}`` as ``("a.b[0]", 1)``; an empty mapping or list is a value."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(content, list | tuple) and content:
        for place, value in enumerate(content):
            yield from flat(value, f"{prefix}[{place}]")
    else:
        yield prefix, content


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Keys that do not have the same value in both; one that is absent has null."""
    left, right = dict(flat(first)), dict(flat(second))
    return [
        {"key": key, "first": left.get(key), "second": right.get(key)}
        for key in dict.fromkeys([*left, *right])
        if key not in left or key not in right or left[key] != right[key]
    ]


def origins(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same of two manifests: versions, commit, seed, trace, cost models."""
    left, right = ({key: value for key, value in told.items() if key not in _VOLATILE} for told in (first, second))
    return differing(left, right)


def figures(first: Mapping[str, float], second: Mapping[str, float]) -> list[dict[str, Any]]:
    """Metrics that differ: both values, second less first, and that over the first."""
    return [_figure(row) for row in differing(first, second)]


def _figure(row: dict[str, Any]) -> dict[str, Any]:
    left, right = row["first"], row["second"]
    if left is None or right is None:
        return {**row, "difference": None, "relative": None}
    return {**row, "difference": right - left, "relative": (right - left) / abs(left) if left else None}
