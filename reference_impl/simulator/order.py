"""The total order of events in virtual time: the moment (``core/moments.py``), what kind of event, and its place."""

from __future__ import annotations

ARRIVALS, COMPLETIONS, TICKS = 0, 1, 2
"""At one moment: what arrives, then what ends (lane by lane), then who looks."""
BEFORE_LANES, AFTER_LANES = -1, 1 << 60
"""Places of arrivals and ticks beside the lanes' own, 0, 1, 2, ..."""
