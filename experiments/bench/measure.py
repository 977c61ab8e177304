"""One timed simulation: from the in-memory trace to the closed event log."""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.bench.figures import Sample
from experiments.bench.reference import reference_cpu_s
from experiments.config import FleetConfig, GroupConfig, PoliciesConfig, RunConfig, WorkloadConfig
from experiments.config_build import build_cluster
from experiments.run import simulate_to

if TYPE_CHECKING:
    from policies.api import Role
    from workloads.trace import Trace


def colocated(instances: int, dispatch: str, batch: str) -> RunConfig:
    """Llama-2-7B on A100-80G; the workload is handed over in memory."""
    return on_instances(instances, dispatch, batch)


def on_instances(
    instances: int,
    dispatch: str,
    batch: str,
    *,
    role: Role = "colocated",
    partition: str = "none",
    predictor: str = "none",
) -> RunConfig:
    """The same with instances of another role; ``partition`` is that of semi-PD instances."""
    return RunConfig(
        workload=WorkloadConfig(trace="in memory"),
        fleet=FleetConfig(groups=(GroupConfig(count=instances, role=role),), hardware="a100-80g", model="llama-2-7b"),
        policies=PoliciesConfig(dispatch=dispatch, batch=batch, partition=partition, predictor=predictor),
    )


def measure(config: RunConfig, trace: Trace) -> Sample:
    """CPU seconds of all threads for cluster, simulation and event log; the reference loop runs just before."""
    gc.collect()
    reference_s = reference_cpu_s()
    with tempfile.TemporaryDirectory(prefix="semiflow-bench-") as folder:
        started = time.process_time()
        simulate_to(Path(folder) / "events.parquet", config, build_cluster(config), trace)
        return Sample(time.process_time() - started, reference_s)
