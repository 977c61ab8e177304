"""What a run's event log says of one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.insight.lanes import ran
from experiments.insight.saved_run import SavedRun

if TYPE_CHECKING:
    from reference_impl.metrics.phases import Phase

_LONGEST_GAPS = 5


def facts(saved: SavedRun, request: int) -> dict[str, Any]:
    """What the request was, and what became of it."""
    table, at = saved.table, saved.position(request)
    return {
        "outcome": table.outcome(at),
        "reasons": _reasons(saved, request),
        "arrival_s": float(table.arrival_s[at]),
        "prompt_tokens": int(table.prompt_tokens[at]),
        "output_tokens": int(table.output_tokens[at]),
        "cached_tokens": int(table.cached_tokens[at]),
        "preemptions": int(table.preemptions[at]),
        "path": list(table.path(at)),
        "ttft_s": _number(table.ttft_s[at]),
        "tpot_s": _number(table.tpot_s[at]),
        "e2e_s": _number(table.e2e_s[at]),
    }


def _reasons(saved: SavedRun, request: int) -> list[dict[str, Any]]:
    """What policies and hosts said of the request, in order."""
    import pyarrow.parquet as pq

    columns = ["time_s", "kind", "instance", "reason"]
    rows = pq.read_table(saved.events, columns=columns, filters=[("request", "=", request)]).to_pylist()
    return [row for row in rows if row["reason"]]


def slo_margin(saved: SavedRun, request: int) -> dict[str, Any] | None:
    """Per target: the figure, whether it is met, and what is left of the target (negative: over)."""
    from reference_impl.metrics.slo import LoggedSlo, met, targets

    slo = LoggedSlo.of(saved.log.metadata)
    if slo is None:
        return None
    table, at = saved.table, saved.position(request)
    judged = targets(saved.log, table, slo)
    found: dict[str, Any] = {"met": bool(met(saved.log, slo).every[at])}
    for name, of_all, value in (("ttft", judged.ttft_s, table.ttft_s[at]), ("tpot", judged.tpot_s, table.tpot_s[at])):
        target_s = float(of_all[at])
        if target_s < np.inf:
            value_s = _number(value)
            left_s = None if value_s is None else target_s - value_s
            found[name] = {"target_s": target_s, "value_s": value_s, "left_s": left_s}
    return found


def decode_gaps(saved: SavedRun, request: int, phases: Sequence[Phase]) -> dict[str, Any]:
    """The gaps between its tokens, and what its instance ran in the longest ones."""
    from reference_impl.metrics import rebuild

    times_s = rebuild(saved.log).moments_s(request)
    gaps_s = np.diff(times_s)
    longest = np.sort(np.argsort(-gaps_s, kind="stable")[:_LONGEST_GAPS])
    return {
        "gaps": len(gaps_s),
        "gap_p50_s": float(np.median(gaps_s)) if len(gaps_s) else None,
        "gap_max_s": float(gaps_s.max()) if len(gaps_s) else None,
        "longest": [_gap(saved, phases, float(times_s[i]), float(times_s[i + 1]), int(i) + 2) for i in longest],
    }


def _gap(saved: SavedRun, phases: Sequence[Phase], start_s: float, end_s: float, token: int) -> dict[str, Any]:
    here = [phase for phase in phases if phase.start_s < end_s and phase.end_s > start_s]
    instance = here[-1].instance if here else None
    iterations = ran(saved, instance, start_s, end_s)
    return {
        "token": token,
        "start_s": start_s,
        "duration_s": end_s - start_s,
        "phases": list(dict.fromkeys(phase.name for phase in here)),
        "instance": instance,
        "iterations": sum(part.iterations for part in iterations),
        "prompt_tokens": sum(part.prompt_tokens for part in iterations),
        "most_decodes": max((part.decodes for part in iterations), default=0),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
