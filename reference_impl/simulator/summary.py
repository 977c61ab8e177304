"""What a simulation says about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """What a simulation did; metrics come from the event log."""

    requests: int
    finished: int
    rejected: int
    preemptions: int
    runs: int
    """Rows of iterations; each stands for one or more."""
    iterations: int
    last_event_at_s: float
    """On the clock of the trace, which starts at 0. The makespan of the metrics counts from the first arrival."""
    turns_after_rejection: int = 0
    """In a closed loop: turns that came although the request before them was rejected."""
