"""Checks of the parameters of synthetic workloads."""

from __future__ import annotations

import math
from typing import TypeGuard

from workloads.errors import TraceError, shown

MAX_REQUESTS = 100_000_000
"""More than any machine simulates; a slip of the keyboard should not fill the memory."""

_MAX_RATE_RPS = 1e6


def positive(owner: object, **values: object) -> None:
    """Each value is a finite number greater than 0."""
    for name, value in values.items():
        if not (_is_number(value) and value > 0):
            raise TraceError(_refuse(owner, name, value, "finite numbers > 0"))


def rate(owner: object, **values: object) -> None:
    """Each value is a number of requests per second that a machine could be offered."""
    for name, value in values.items():
        if not (_is_number(value) and 0 < value <= _MAX_RATE_RPS):
            raise TraceError(_refuse(owner, name, value, f"numbers > 0, at most {_MAX_RATE_RPS:,.0f}"))


def between(owner: object, low: float, high: float, **values: object) -> None:
    """Each value is a number in ``low``..``high``."""
    for name, value in values.items():
        if not (_is_number(value) and low <= value <= high):
            raise TraceError(_refuse(owner, name, value, f"numbers {low}..{high}"))


def whole(owner: object, low: int, high: int, **values: object) -> None:
    """Each value is an integer in ``low``..``high``."""
    for name, value in values.items():
        if type(value) is not int or not low <= value <= high:
            raise TraceError(_refuse(owner, name, value, f"integers {low}..{high}"))


def one_of(owner: object, choices: tuple[str, ...], **values: object) -> None:
    """Each value is one of ``choices``."""
    for name, value in values.items():
        if value not in choices:
            raise TraceError(_refuse(owner, name, value, ", ".join(choices)))


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _refuse(owner: object, name: str, value: object, allowed: str) -> str:
    return f"{type(owner).__name__}: {name}={shown(value)} (allowed: {allowed})"
