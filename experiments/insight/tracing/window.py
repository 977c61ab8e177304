"""What every track of a trace shares: the window of time, and the numbers of processes and threads."""

from __future__ import annotations

from typing import Any, NamedTuple

Event = dict[str, Any]
FRONT_DOOR = 1
"""A process id; 0 means the idle process to viewers."""
THREADS = {"mixed": 1, "prefill": 2, "decode": 3}
"""Thread id of each kind of lane; 0: none of them."""


def process(instance: int | None) -> int:
    """The process id of an instance; None: the front door."""
    return FRONT_DOOR if instance is None else FRONT_DOOR + 1 + instance


class Window(NamedTuple):
    """The part of a run that is shown, in seconds of its own clock."""

    from_s: float
    to_s: float

    def shows(self, start_s: float, end_s: float) -> bool:
        """Whether any of this stretch is in the window."""
        return end_s > self.from_s and start_s < self.to_s

    def us(self, time_s: float) -> float:
        """Microseconds, to the nanosecond; what is outside is moved to the window's edge."""
        return self._ns(time_s) / 1000

    def span(self, start_s: float, end_s: float) -> Event:
        """Beginning and duration of a slice."""
        start, end = self._ns(start_s), self._ns(end_s)
        return {"ts": start / 1000, "dur": (end - start) / 1000}

    def _ns(self, time_s: float) -> int:
        return round(min(max(time_s, self.from_s), self.to_s) * 1e9)
