"""Which times are one moment: what orders events, in virtual time and in a log."""

from __future__ import annotations

_SHIFT = 0.3
"""Of the edges between nanoseconds: costs that are round in binary or decimal add up to halves of a nanosecond, which
the last bits of a float would round up or down."""


def time_key(time_s: float) -> int:
    """The place of a moment in the event order: whole nanoseconds.

    Moments that round to the same nanosecond are ordered by kind and place, not by the last bits of a float, so a
    closed form and plain stepping order them alike.
    """
    return int(time_s * 1e9 + _SHIFT)
