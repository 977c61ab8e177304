"""Running and waiting requests and KV use over time, on an even grid: what a timeline draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reference_impl.metrics.fleet import presence
from reference_impl.metrics.log import Floats, Ints, RunLog
from reference_impl.metrics.resources import steps


class Timeline(NamedTuple):
    """Columns of equal length; seconds since the first arrival."""

    time_s: Floats
    running: Floats
    """Requests admitted to an instance and neither finished nor preempted or lost since."""
    waiting: Floats
    """Requests that arrived and are neither running nor done."""
    kv_use: Floats | None
    """Share of the KV blocks of all instances that were ever there; None where the log does not say."""


def timeline(run: RunLog, points: int = 300) -> Timeline:
    """Sample the run at ``points`` moments from the first arrival to the last outcome."""
    return sampled(run, np.linspace(run.first_arrival_s, run.last_outcome_s, points))


def sampled(run: RunLog, grid: Floats) -> Timeline:
    """The run at these moments, seconds on its own clock; what happens in a moment has happened."""
    arrivals = np.sort(run.rows["arrive"].floats("time_s"))
    gone = np.sort(np.concatenate([run.rows[kind].floats("time_s") for kind in ("finish", "reject")]))
    times, running = _running(run)
    present = np.searchsorted(arrivals, grid, side="right") - np.searchsorted(gone, grid, side="right")
    now_running = np.append(0, running)[np.searchsorted(times, grid, side="right")].astype(np.float64)
    return Timeline(grid - run.first_arrival_s, now_running, present - now_running, _kv(run, grid))


def _running(run: RunLog) -> tuple[Floats, Ints]:
    """Running requests after each change. A request admitted twice (prefill, then decode instance) counts once."""
    kinds = ("admit", "preempt", "lost", "finish", "reject")
    parts = [run.rows[kind] for kind in kinds]
    request = np.concatenate([part.ints("request") for part in parts])
    time_s = np.concatenate([part.floats("time_s") for part in parts])
    inside = np.concatenate([np.full(len(part), part.kind == "admit", np.int64) for part in parts])
    order = np.lexsort((np.concatenate([part.ints("row") for part in parts]), request))
    request, time_s, inside = request[order], time_s[order], inside[order]
    before = np.where(np.append(-1, request[:-1]) == request, np.append(0, inside[:-1]), 0)[: len(request)]
    by_time = np.argsort(time_s, kind="stable")
    return time_s[by_time], np.cumsum((inside - before)[by_time])


def _kv(run: RunLog, grid: Floats) -> Floats | None:
    pools = presence(run).pools
    runs = run.rows["run"]
    blocks = runs.ints("kv_blocks")
    if not pools or (blocks < 0).any():
        return None
    total = np.zeros(len(grid))
    for number in pools:
        here = np.flatnonzero(runs.ints("instance") == number)
        begin_s, end_s, held = steps(runs.floats("start_s")[here], runs.floats("time_s")[here], blocks[here])
        place = np.searchsorted(end_s, grid, side="left")
        inside = place < len(end_s)
        place = np.where(inside, place, 0)
        if len(end_s):
            total += np.where(inside & (begin_s[place] <= grid), held[place], 0)
    return total / sum(pools.values())
