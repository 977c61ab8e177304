"""How the hardware was used: KV pools, lanes, the prefix cache."""

from __future__ import annotations

import numpy as np

from reference_impl.metrics.fleet import presence
from reference_impl.metrics.log import LANES, Floats, Ints, RunLog
from reference_impl.metrics.requests import RequestTable


def lane_utilisation(run: RunLog) -> dict[str, float]:
    """Busy share of the time that lanes were there, over all lanes (``lane_utilisation``) and by kind of lane."""
    there = presence(run)
    if not there.total_lane_s > 0:
        return {}
    runs = run.rows["run"]
    busy_s = np.bincount(runs.ints("lane"), runs.floats("time_s") - runs.floats("start_s"), minlength=len(LANES))
    found = {
        f"lane_utilisation_{lane}": float(busy_s[LANES.index(lane)]) / lane_s
        for lane, lane_s in sorted(there.lane_s.items())
        if lane_s > 0
    }
    return {"lane_utilisation": float(busy_s.sum()) / there.total_lane_s, **found}


def kv_use(run: RunLog) -> dict[str, float]:
    """Mean and peak share of the KV blocks in use; nothing where the log does not say how large the pools are."""
    there = presence(run)
    runs = run.rows["run"]
    blocks = runs.ints("kv_blocks")
    if not there.block_s > 0 or not len(runs) or (blocks < 0).any():
        return {}
    peak, block_seconds = 0.0, 0.0
    for number, pool in there.pools.items():
        here = np.flatnonzero(runs.ints("instance") == number)
        begin_s, end_s, held = steps(runs.floats("start_s")[here], runs.floats("time_s")[here], blocks[here])
        peak = max(peak, float(held.max(initial=0)) / pool)
        block_seconds += float(np.sum(held * (end_s - begin_s)))
    return {"kv_use_mean": block_seconds / there.block_s, "kv_use_peak": peak}


def steps(start_s: Floats, end_s: Floats, value: Ints) -> tuple[Floats, Floats, Ints]:
    """The value over time from runs that may overlap (two lanes), by ascending end: what a run reports at its end holds
    back to the report before it, so far as any run was under way. Time without any run is left out."""
    order = np.argsort(end_s, kind="stable")
    start_s, end_s, value = start_s[order], end_s[order], value[order]
    if not len(end_s):
        return start_s, end_s, value
    under_way_s = np.minimum.accumulate(start_s[::-1])[::-1]  # the earliest start of what ends here or later
    return np.maximum(under_way_s, np.append(-np.inf, end_s[:-1])), end_s, value


def prefix_hit_ratio(table: RequestTable) -> dict[str, float]:
    """Cached prompt tokens over all prompt tokens, at the first admission of each request."""
    prompt_tokens = int(table.prompt_tokens[table.admitted].sum())
    if not prompt_tokens:
        return {}
    return {"prefix_hit_ratio": int(table.cached_tokens[table.admitted].sum()) / prompt_tokens}
