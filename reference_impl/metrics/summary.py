"""All figures of one run. Their meaning: ``definitions.py``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from reference_impl.metrics.definitions import PERCENTILES
from reference_impl.metrics.devices import cost, device_use
from reference_impl.metrics.fairness import fairness
from reference_impl.metrics.fleet import presence
from reference_impl.metrics.fluidity import fluidity
from reference_impl.metrics.groups import by_group
from reference_impl.metrics.log import Bools, EventLogError, RunLog
from reference_impl.metrics.requests import RequestTable, per_request
from reference_impl.metrics.resources import kv_use, lane_utilisation, prefix_hit_ratio
from reference_impl.metrics.settling import load_growth
from reference_impl.metrics.slo import LoggedSlo, Met, met
from reference_impl.metrics.statistics import Weighted
from reference_impl.metrics.token_log import TokenLog
from reference_impl.metrics.tokens import check, rebuild
from reference_impl.metrics.waste import recomputed, rejected_work

MIN_WARMUP_REQUESTS = 128


def summarise(run: RunLog, slo: LoggedSlo | None = None, *, warmup_requests: int | None = None) -> dict[str, float]:
    """Every figure that can be computed; latencies in milliseconds, rates per second, shares from 0 to 1.

    ``slo=None`` judges by the SLO that the log was recorded under. ``warmup_requests=None`` drops the fleet's
    concurrency limit, at least 128, from the ``_trimmed`` figures. Warns, and leaves ITL out, where the log's run rows
    contradict its request rows.
    """
    table = per_request(run)
    slo = slo if slo is not None else LoggedSlo.of(run.metadata)
    judged = met(run, slo) if slo is not None else None
    good = judged.every if judged is not None else None
    everyone = np.ones(len(table), np.bool_)
    warmup = warmup_requests if warmup_requests is not None else default_warmup(run)
    kept = np.arange(len(table)) >= warmup
    rebuilt = _token_log(run)
    devices = device_use(run)
    found = {
        **_counts(run, table),
        **_latencies(table, everyone, rebuilt),
        **_judged(run, table, everyone, slo, judged),
        **fluidity(run, table, rebuilt, slo),
        **fairness(run, table, rebuilt),
        **rejected_work(table, rebuilt),
        **recomputed(run, table),
        **devices,
        **cost(run, table, good, devices.get("device_held_s")),
        **kv_use(run),
        **prefix_hit_ratio(table),
        **lane_utilisation(run),
        **load_growth(run),
        "warmup_requests": float(warmup),
    }
    if kept.any():
        trimmed = {**_latencies(table, kept, rebuilt), **_judged(run, table, kept, slo, judged)}
        found |= {f"{key}_trimmed": value for key, value in trimmed.items() if not key.startswith("attainment_")}
    return found | by_group(run, table, good)


def default_warmup(run: RunLog) -> int:
    """The fleet's concurrency limit (``max_sequences`` of its instances, where the log states them), at least 128."""
    limit = sum(int(instance.get("max_sequences", 0)) for instance in run.instances)
    return max(limit, MIN_WARMUP_REQUESTS)


def _token_log(run: RunLog) -> TokenLog | None:
    rebuilt = rebuild(run)
    try:
        check(run, rebuilt)
    except EventLogError as error:
        warnings.warn(f"inter-token latencies are left out: {error}", stacklevel=3)
        return None
    return rebuilt


def _counts(run: RunLog, table: RequestTable) -> dict[str, float]:
    finished = table.finished
    found = {
        "arrived": float(len(table)),
        "completed": float(finished.sum()),
        "rejected": float(table.rejected.sum()),
        "unfinished": float((~finished & ~table.rejected).sum()),
        "preemptions": float(table.preemptions.sum()),
    }
    offered = run.metadata.get("offered_rps")
    span_s = float(np.ptp(table.arrival_s)) if len(table) else 0.0
    if offered is not None or span_s > 0:
        found["offered_rps"] = float(offered) if offered is not None else len(table) / span_s
    if len(table):
        found["makespan_s"] = run.makespan_s
    if run.makespan_s > 0:
        output = int(table.output_tokens[finished].sum())
        found["throughput_rps"] = found["completed"] / run.makespan_s
        found["output_tokens_per_s"] = output / run.makespan_s
        found["total_tokens_per_s"] = (output + int(table.prompt_tokens[finished].sum())) / run.makespan_s
    return found


def latency_samples(table: RequestTable, rebuilt: TokenLog | None, keep: Bools) -> dict[str, Weighted]:
    """The populations of TTFT, TPOT, ITL and E2E in seconds, of the requests in ``keep`` (rows of the table)."""
    samples = {}
    for family, values in (("ttft", table.ttft_s), ("tpot", table.tpot_s), ("e2e", table.e2e_s)):
        samples[family] = Weighted.of(values[keep & ~np.isnan(values)])
    if rebuilt is not None:
        wanted = np.zeros(int(table.request.max(initial=-1)) + 1, np.bool_)
        wanted[table.request[keep & table.finished]] = True
        samples["itl"] = rebuilt.gaps(wanted)
    return samples


def _latencies(table: RequestTable, keep: Bools, rebuilt: TokenLog | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for family, sample in latency_samples(table, rebuilt, keep).items():
        if sample.size:
            values = sample.percentiles(list(PERCENTILES.values()))
            found[f"{family}_mean_ms"] = sample.mean() * 1e3
            found |= {f"{family}_{name}_ms": float(v) * 1e3 for name, v in zip(PERCENTILES, values, strict=True)}
    return found


def _judged(
    run: RunLog, table: RequestTable, keep: Bools, slo: LoggedSlo | None, judged: Met | None
) -> Mapping[str, float]:
    if slo is None or judged is None or not keep.any():
        return {}
    good, arrived = int((judged.every & keep).sum()), int(keep.sum())
    found = {"attainment": good / arrived}
    if slo.any_target("ttft_s"):
        found["attainment_ttft"] = int((judged.ttft & keep).sum()) / arrived
    if slo.any_target("tpot_s"):
        found["attainment_tpot"] = int((judged.tpot & keep).sum()) / arrived
    window_s = run.last_outcome_s - float(table.arrival_s[keep].min())
    if window_s > 0:
        found["goodput_rps"] = good / window_s
        devices = presence(run).devices
        if devices:
            found["goodput_per_device_rps"] = found["goodput_rps"] / devices
    return found
