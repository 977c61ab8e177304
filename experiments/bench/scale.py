"""Does a larger fleet cost more per request? And what is 70 % of capacity?"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.bench.figures import Figure
from experiments.bench.measure import colocated, measure
from experiments.bench.workload import BenchWorkload
from experiments.config_build import build_cluster

if TYPE_CHECKING:
    from workloads.trace import Trace

DISPATCH, BATCH = "least_loaded:metric=tokens", "prefill_first"
FLEETS = (8, 64)
_BACKLOG_REQUESTS = 2000
_LOAD = 0.7


class Load(NamedTuple):
    """Requests per second that keep one instance at 70 % of what it can serve."""

    per_instance_rps: float
    lengths: Trace


def seventy_percent(lengths: Trace) -> Load:
    """Capacity is the throughput of one instance that works off a backlog; lengths are drawn from ``lengths``."""
    from reference_impl.events import EventLog
    from reference_impl.simulator import simulate

    backlog = lengths.bootstrap(_BACKLOG_REQUESTS, 1e6, np.random.default_rng(0))
    summary = simulate(build_cluster(colocated(1, DISPATCH, BATCH)), backlog, EventLog(None))
    return Load(_LOAD * summary.finished / summary.last_event_at_s, lengths)


def poisson(load: Load, instances: int, requests: int) -> Trace:
    """A Poisson workload for a fleet at that load."""
    return load.lengths.bootstrap(requests, load.per_instance_rps * instances, np.random.default_rng(instances))


def cost_ratio(workload: BenchWorkload, load: Load, runs: int, per_instance: int) -> Figure:
    """CPU time per request of 64 instances over that of 8, at equal load per instance."""
    ratios: list[float] = []
    for _ in range(runs):
        costs = []
        for instances in FLEETS:
            trace = poisson(load, instances, per_instance * instances)
            sample = measure(colocated(instances, DISPATCH, BATCH), trace)
            costs.append(sample.cpu_s / sample.reference_s / len(trace))
        ratios.append(costs[1] / costs[0])
    return Figure(
        name="cost per request, 64 against 8 instances",
        value=median(ratios),
        unit="x",
        better="lower",
        reference_loops=None,
        runs=runs,
        floor=1.5,
        aim=1.1,
        note=f"Poisson, lengths of {workload.label}, 70 % of capacity, {per_instance} requests per instance",
    )
