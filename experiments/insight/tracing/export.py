"""A run as a trace for a viewer.

One process for the front door and one per instance, one thread per lane. Slices are iterations, asynchronous slices are
requests with their phases, arrows lead from the prefill of a request that was handed over to its first decode; counters
say who waits and runs where, what the KV pools hold, and how many arrive; every other event of the log is a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import NamedTuple

from experiments.config_base import ConfigError
from experiments.insight.saved_run import SavedRun, open_run
from experiments.insight.tracing.counters import Occupancy, arrivals, kv_blocks
from experiments.insight.tracing.file import trace_file
from experiments.insight.tracing.lanes import Lanes, iterations, lanes
from experiments.insight.tracing.marks import marks
from experiments.insight.tracing.requests import arrows, request_slices
from experiments.insight.tracing.window import FRONT_DOOR, THREADS, Event, Window, process

Progress = Callable[[int, int], None]
_PROGRESS_EVERY = 1024


class Written(NamedTuple):
    """What an export came to."""

    path: Path
    events: int
    size_bytes: int
    """Uncompressed."""


def export(
    folder: Path,
    path: Path,
    *,
    from_s: float | None = None,
    to_s: float | None = None,
    expand: bool = False,
    max_mb: float = 500.0,
    progress: Progress | None = None,
) -> Written:
    """Write the run, or what is of it between two times of its own clock; ``expand``: every iteration by itself.

    Raises ConfigError for a folder that is no finished run's, for a window without anything in it, and for a file that
    grows over ``max_mb`` (then none is left).
    """
    saved = open_run(folder)
    window = _window(saved, from_s, to_s)
    about = {"run": str(folder), "semiflow": saved.log.metadata.get("version"), "host": saved.host}
    with trace_file(path, max_mb, about) as file:
        for event in _events(saved, window, expand, progress):
            file.write(event)
    return Written(path, file.events, file.size_bytes)


def _window(saved: SavedRun, from_s: float | None, to_s: float | None) -> Window:
    times_s = [part.floats("time_s") for part in saved.log.rows.values() if len(part)]
    if not times_s:
        raise ConfigError(f"{saved.events}: holds no event; there is nothing to write")
    first_s, last_s = min(float(part.min()) for part in times_s), max(float(part.max()) for part in times_s)
    low, high = -inf if from_s is None else from_s, inf if to_s is None else to_s
    if not (low < high and low < last_s and high > first_s):
        raise ConfigError(
            f"--from-s {low} --to-s {high}: nothing of the run is in this window; allowed: a part of {first_s:.3f} s"
            f" to {last_s:.3f} s"
        )
    return Window(max(low, first_s), min(high, last_s))


def _events(saved: SavedRun, window: Window, expand: bool, progress: Progress | None) -> Iterator[Event]:
    rows = lanes(saved)
    occupancy = Occupancy()
    yield from _names(saved, rows)
    yield from iterations(saved, window, rows, expand)
    requests = saved.table.request.tolist()
    for position, request in enumerate(requests):
        if progress is not None and not position % _PROGRESS_EVERY:
            progress(position, len(requests))
        phases = saved.phases.of(request)
        occupancy.add(phases)
        yield from request_slices(saved, window, position, phases)
        yield from arrows(window, rows, request, phases)
    yield from occupancy.counters(window)
    yield from kv_blocks(saved, window)
    yield from arrivals(saved, window)
    yield from marks(saved.events, window)


def _names(saved: SavedRun, rows: Lanes) -> Iterator[Event]:
    from reference_impl.metrics.fleet import Roles

    yield _named("process_name", FRONT_DOOR, 0, "front door")
    roles = Roles(saved.log)
    for instance in sorted({*roles.everyone(), *(instance for instance, _ in rows)}):
        served_as = ", ".join(dict.fromkeys(roles.of(instance).values()))
        yield _named("process_name", process(instance), 0, f"instance {instance} {served_as}".rstrip())
    for instance, lane in rows:
        yield _named("thread_name", process(instance), THREADS[lane], f"{lane} lane")


def _named(what: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}
