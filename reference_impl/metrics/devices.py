"""How long devices were held and how long they computed, and what that cost."""

from __future__ import annotations

import numpy as np

from reference_impl.metrics.fleet import devices_of, presence
from reference_impl.metrics.log import Bools, Floats, RunLog
from reference_impl.metrics.requests import RequestTable

_HOUR_S = 3600.0


def device_use(run: RunLog) -> dict[str, float]:
    """``device_held_s`` and ``device_busy_s``; nothing where the log does not say which devices there are.

    Without rows of instances coming and going, every one holds its devices for the whole makespan.
    """
    held_s = presence(run).device_s
    if not held_s > 0:
        return {}
    runs = run.rows["run"]
    busy_s = 0.0
    for number, count in devices_of(run).items():
        here = np.flatnonzero(runs.ints("instance") == number)
        busy_s += count * _covered_s(runs.floats("start_s")[here], runs.floats("time_s")[here])
    return {"device_held_s": held_s, "device_busy_s": busy_s}


def cost(run: RunLog, table: RequestTable, good: Bools | None, held_s: float | None) -> dict[str, float]:
    """What the held devices cost by the price that the run states, in its currency; nothing where it states none."""
    price = run.metadata.get("price_per_device_hour")
    if price is None or held_s is None:
        return {}
    found = {"cost": float(price) * held_s / _HOUR_S}
    output_tokens = int(table.output_tokens[table.finished].sum())
    if output_tokens:
        found["cost_per_million_output_tokens"] = found["cost"] / output_tokens * 1e6
    if good is not None and good.any():
        found["cost_per_thousand_good_requests"] = found["cost"] / int(good.sum()) * 1e3
    return found


def _covered_s(start_s: Floats, end_s: Floats) -> float:
    """Time that the intervals cover, counting once what several of them do (two lanes)."""
    order = np.argsort(start_s, kind="stable")
    start_s, reached_s = start_s[order], np.maximum.accumulate(end_s[order])
    before_s = np.append(-np.inf, reached_s[:-1])[: len(start_s)]
    return float(np.sum(np.maximum(reached_s - np.maximum(start_s, before_s), 0.0)))
