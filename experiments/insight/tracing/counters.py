"""Counters: waiting and running requests, KV blocks in use, arrivals per second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.insight.saved_run import SavedRun
from experiments.insight.tracing.window import FRONT_DOOR, Event, Window, process

if TYPE_CHECKING:
    from reference_impl.metrics.phases import Phase

_WAITING = ("dispatch_wait", "queue", "preempted", "lost")
_RATE_BIN_S = 1.0
_ROUNDING_S = 1e-9


@dataclass
class Occupancy:
    """Requests that wait or run, at the front door and on each instance, as their phases are told."""

    _changes: dict[tuple[int, str], list[tuple[int, int]]] = field(default_factory=dict)
    """Process and counter -> (nanosecond, by how much it changes)."""

    def add(self, phases: Sequence[Phase]) -> None:
        """Count one request."""
        for phase in phases:
            name = "waiting" if phase.name in _WAITING else "running"
            changes = self._changes.setdefault((process(phase.instance), name), [])
            changes += [(round(phase.start_s * 1e9), 1), (round(phase.end_s * 1e9), -1)]

    def counters(self, window: Window) -> Iterator[Event]:
        """All of them."""
        for (pid, name), changes in sorted(self._changes.items()):
            at, by = np.array(sorted(changes), np.int64).T
            moments, first = np.unique(at, return_index=True)
            yield from _counter(window, pid, name, moments / 1e9, np.cumsum(np.add.reduceat(by, first)))


def kv_blocks(saved: SavedRun, window: Window) -> Iterator[Event]:
    """KV blocks in use, as each run of iterations left them."""
    runs = saved.log.rows["run"]
    for instance in np.unique(runs.ints("instance")).tolist():
        here = np.flatnonzero((runs.ints("instance") == instance) & (runs.ints("kv_blocks") >= 0))
        here = here[np.argsort(runs.floats("time_s")[here], kind="stable")]
        blocks = runs.ints("kv_blocks")[here]
        yield from _counter(window, process(instance), "KV blocks", runs.floats("time_s")[here], blocks)


def arrivals(saved: SavedRun, window: Window) -> Iterator[Event]:
    """Arrivals per second, by the second."""
    arrival_s = saved.table.arrival_s
    edges = np.arange(arrival_s.min(), arrival_s.max() + 2 * _RATE_BIN_S, _RATE_BIN_S)
    counts, _ = np.histogram(arrival_s, edges)
    yield from _counter(window, FRONT_DOOR, "arrivals per s", edges[:-1], counts / _RATE_BIN_S)


def _counter(
    window: Window, pid: int, name: str, time_s: NDArray[np.float64], value: NDArray[np.generic]
) -> Iterator[Event]:
    """Its value when the window begins, and each change in the window: the last one of a moment."""
    begins = max(int(np.searchsorted(time_s, window.from_s, "right")) - 1, 0)
    ends = int(np.searchsorted(time_s, window.to_s + _ROUNDING_S, "right"))
    times_us = [window.us(at_s) for at_s in time_s[begins:ends].tolist()]
    for at_us, after_us, level in zip(times_us, [*times_us[1:], None], value[begins:ends].tolist(), strict=True):
        if at_us != after_us:
            yield {"ph": "C", "name": name, "pid": pid, "ts": at_us, "args": {name: level}}
