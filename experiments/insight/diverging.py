"""Where two event logs part: the first row that differs, and the first request that was sent elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.insight.pairing import Pairs
from experiments.insight.saved_run import SavedRun

if TYPE_CHECKING:
    import pyarrow as pa


def first_event(first: SavedRun, second: SavedRun) -> dict[str, Any] | None:
    """The first row at which the logs differ in anything, with both rows (null: that log has ended); None: nowhere."""
    import pyarrow.parquet as pq

    left, right = pq.read_table(first.events), pq.read_table(second.events)
    size = min(left.num_rows, right.num_rows)
    if left.slice(0, size).equals(right.slice(0, size)):
        if left.num_rows == right.num_rows:
            return None
        at = size
    else:
        at = _first_difference(left, right, size)
    return {"row": at, "first": _row(left, at), "second": _row(right, at)}


def _first_difference(left: pa.Table, right: pa.Table, size: int) -> int:
    """By bisection: the longest beginning that is equal in both."""
    low, high = 0, size
    while low + 1 < high:
        middle = (low + high) // 2
        if left.slice(low, middle - low).equals(right.slice(low, middle - low)):
            low = middle
        else:
            high = middle
    return low


def _row(table: pa.Table, at: int) -> dict[str, Any] | None:
    if at >= table.num_rows:
        return None
    return {name: cell for name, cell in table.slice(at, 1).to_pylist()[0].items() if cell is not None}


def first_decision(first: SavedRun, second: SavedRun, pairs: Pairs) -> dict[str, Any] | None:
    """The paired request, by time in the first run, that was first sent to another instance (or refused in one run
    only); None: there is none, or a run does not say where requests went."""
    sent = [_first_dispatches(run) for run in (first, second)]
    if not all(sent):
        return None
    for at in _by_dispatch(first, sent[0], pairs):
        requests = int(first.table.request[pairs.first[at]]), int(second.table.request[pairs.second[at]])
        where = [sent[side].get(request) for side, request in enumerate(requests)]
        chosen, times_s = ([None if one is None else one[part] for one in where] for part in (1, 0))
        if chosen[0] != chosen[1]:
            return {"request": requests[0], "request_in_second": requests[1], "instances": chosen, "times_s": times_s}
    return None


def _by_dispatch(run: SavedRun, sent: dict[int, tuple[float, int]], pairs: Pairs) -> list[int]:
    """The pairs by when their requests were sent in the first run; where that never was, by their arrival."""
    arrived = run.table.arrival_s[pairs.first].tolist()
    requests = run.table.request[pairs.first].tolist()
    times_s = [sent.get(request, (time_s, 0))[0] for request, time_s in zip(requests, arrived, strict=True)]
    return [int(place) for place in np.argsort(times_s, kind="stable")]


def _first_dispatches(run: SavedRun) -> dict[int, tuple[float, int]]:
    """Request -> when and where it was sent first."""
    rows = run.log.rows["dispatch"]
    columns = rows.ints("request"), rows.floats("time_s"), rows.ints("instance")
    found: dict[int, tuple[float, int]] = {}
    for request, time_s, instance in zip(*(column.tolist() for column in columns), strict=True):
        found.setdefault(request, (time_s, instance))
    return found
