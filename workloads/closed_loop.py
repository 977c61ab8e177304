"""Sessions in closed loop: a turn comes ``think_s`` after the answer before it, whenever a server gives that.

A session here is a request without a parent and all that follow it, directly or not. Only first turns keep their
recorded times. A turn follows whatever became of its parent, an answer or an error, so that every system is offered
the same requests and none gains by refusing the first one of a long session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workloads import transform
from workloads.errors import TraceError
from workloads.sessions import NO_PARENT

if TYPE_CHECKING:
    from workloads.trace import Trace

Followers = Mapping[int, list[tuple[int, float]]]
"""Row -> the rows that wait for its answer, each with its think time in seconds."""


def check(trace: Trace) -> None:
    """Raises TraceError where the trace does not say what a closed loop has to know of every turn."""
    if trace.parent_row is None or trace.think_s is None:
        missing = "parent_row" if trace.parent_row is None else "think_s"
        raise TraceError(
            f"{trace.name}: no column {missing}: which turn follows which answer, and when, is not known; a closed loop"
            " needs sessions with think times (kv-cache-tester's have them); leave closed_loop out"
        )
    if trace.turn is not None:
        lost = np.flatnonzero((trace.turn > 0) & (trace.parent_row == NO_PARENT))
        if lost.size:
            row = int(lost[0])
            raise TraceError(
                f"{trace.name}, row {row}: turn {trace.turn[row]} without a parent ({lost.size} in all); a closed"
                " loop needs whole sessions: take the trace uncut, or leave closed_loop out"
            )


def followers(trace: Trace) -> Followers:
    """Who waits for whom. Raises TraceError as :func:`check` does."""
    check(trace)
    assert trace.parent_row is not None
    assert trace.think_s is not None
    found: dict[int, list[tuple[int, float]]] = {}
    rows = np.flatnonzero(trace.parent_row != NO_PARENT)
    parents, thinks = trace.parent_row[rows].tolist(), trace.think_s[rows].tolist()
    for row, parent, think_s in zip(rows.tolist(), parents, thinks, strict=True):
        found.setdefault(parent, []).append((row, think_s))
    return found


def first_turns(trace: Trace) -> NDArray[np.int64]:
    """Rows of the requests that wait for nobody, in order."""
    assert trace.parent_row is not None
    return np.flatnonzero(trace.parent_row == NO_PARENT)


def head(trace: Trace, count: int) -> Trace:
    """The first sessions, whole, up to the first one that would make it more than ``count`` requests."""
    transform.check_count(trace, "count", count, 1, None)
    roots = _roots(trace)
    firsts, sizes = np.unique(roots, return_counts=True)
    kept = firsts[np.cumsum(sizes) <= count]
    if kept.size == 0:
        raise TraceError(
            f"{trace.name}: the first session has {sizes[0]} requests, {count} were asked for (allowed: {sizes[0]} or"
            " more: a closed loop keeps sessions whole)"
        )
    return transform.take(trace, f"whole sessions, head({count})", np.flatnonzero(np.isin(roots, kept)))


def window(trace: Trace, start_s: float, end_s: float) -> Trace:
    """The sessions whose first turn arrives in [start_s, end_s), whole, with ``start_s`` as the new time 0."""
    roots = _roots(trace)
    begun = trace.arrival_s[roots]
    inside = np.flatnonzero((begun >= start_s) & (begun < end_s))
    if inside.size == 0:
        raise TraceError(f"{trace.name}: no session begins between {start_s!r} and {end_s!r} s")
    change = f"whole sessions, window({start_s}, {end_s})"
    return transform.take(trace, change, inside, arrival_s=trace.arrival_s[inside] - start_s)


def _roots(trace: Trace) -> NDArray[np.int64]:
    """Of each row the row that its session begins with. Raises TraceError as :func:`check` does."""
    check(trace)
    assert trace.parent_row is not None
    roots: list[int] = []
    for row, parent in enumerate(trace.parent_row.tolist()):
        roots.append(row if parent == NO_PARENT else roots[parent])
    return np.array(roots, dtype=np.int64)
