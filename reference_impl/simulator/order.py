"""The total order of events in virtual time: whole nanoseconds, then what kind of event, then its place."""

from __future__ import annotations

ARRIVALS, COMPLETIONS, TICKS = 0, 1, 2
"""At one moment: what arrives, then what ends (lane by lane), then who looks."""
BEFORE_LANES, AFTER_LANES = -1, 1 << 60
"""Places of arrivals and ticks beside the lanes' own, 0, 1, 2, ..."""


def time_key(time_s: float) -> int:
    """The place of a moment in the event order: whole nanoseconds.

    Moments that round to the same nanosecond are ordered by kind and place, not by the last bits of a float, so a
    closed form and plain stepping order them alike.
    """
    return int(time_s * 1e9 + 0.5)
