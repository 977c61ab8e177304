"""Asynchronous slices: requests with their phases; arrows where a request was handed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.insight.saved_run import SavedRun
from experiments.insight.tracing.lanes import Lanes
from experiments.insight.tracing.window import FRONT_DOOR, THREADS, Event, Window, process

if TYPE_CHECKING:
    from reference_impl.metrics.phases import Phase


def request_slices(saved: SavedRun, window: Window, position: int, phases: Sequence[Phase]) -> Iterator[Event]:
    """The request at this row of the run's table, its phases nested in it."""
    shown = [phase for phase in phases if window.shows(phase.start_s, phase.end_s)]
    if not shown:
        return
    table = saved.table
    request = int(table.request[position])
    args = {
        "prompt_tokens": int(table.prompt_tokens[position]),
        "output_tokens": int(table.output_tokens[position]),
        "outcome": table.outcome(position),
    }
    whole = {"name": f"request {request}", **_same(request)}
    yield {"ph": "b", **whole, "ts": window.us(shown[0].start_s), "args": args}
    for phase in shown:
        part = {"name": phase.name, **_same(request)}
        where = {} if phase.instance is None else {"args": {"instance": phase.instance}}
        yield {"ph": "b", **part, "ts": window.us(phase.start_s), **where}
        yield {"ph": "e", **part, "ts": window.us(phase.end_s)}
    yield {"ph": "e", **whole, "ts": window.us(shown[-1].end_s)}


def _same(request: int) -> Event:
    """What makes events one asynchronous track."""
    return {"cat": "request", "id": str(request), "pid": FRONT_DOOR, "tid": 0}


def arrows(window: Window, lanes: Lanes, request: int, phases: Sequence[Phase]) -> Iterator[Event]:
    """From the iteration that ended a prompt to the first one that decodes elsewhere, where both are in the window."""
    computed: Phase | None = None
    for place, phase in enumerate(phases[:-1]):
        if phase.name in ("prefill", "recompute"):
            computed = phase
        elif phase.name == "transfer" and computed is not None:
            yield from _arrow(window, lanes, f"{request}.{place}", computed, phases[place + 1])


def _arrow(window: Window, lanes: Lanes, number: str, computed: Phase, decodes: Phase) -> Iterator[Event]:
    from_lane, to_lane = _lane(lanes, computed, "prefill"), _lane(lanes, decodes, "decode")
    if from_lane is None or to_lane is None:
        return
    source, target = lanes[from_lane], lanes[to_lane]
    last = int(np.searchsorted(source.start_s, computed.end_s - 1e-9, "left")) - 1
    first = int(np.searchsorted(target.start_s, decodes.start_s - 1e-9, "left"))
    if last < 0 or first == len(target.rows) or target.start_s[first] > decodes.end_s:
        return
    left_s, came_s = float(source.start_s[last]), float(target.start_s[first])
    if left_s >= window.from_s and came_s < window.to_s:
        same = {"name": "hand-over", "cat": "hand-over", "id": number}
        sender = {"pid": process(computed.instance), "tid": THREADS[from_lane[1]]}
        taker = {"pid": process(decodes.instance), "tid": THREADS[to_lane[1]]}
        yield {"ph": "s", **same, **sender, "ts": window.us(left_s)}
        yield {"ph": "f", "bp": "e", **same, **taker, "ts": window.us(came_s)}


def _lane(lanes: Lanes, phase: Phase, kind: str) -> tuple[int, str] | None:
    """The lane of the phase's instance that did this kind of work; a colocated instance has one for both."""
    return next(
        ((number, each) for number, each in lanes if number == phase.instance and each in (kind, "mixed")), None
    )
