"""Two clients of one saturated instance, as VTC's paper measured them on an A10G (arXiv 2401.00588, its logs)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.registry import PolicySpec
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.latency.devices import hardware
from reference_impl.latency.hf_config import model
from reference_impl.latency.roofline import Roofline
from reference_impl.metrics import read, summarise
from reference_impl.request_labels import packed
from reference_impl.simulator import simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
LENGTH = 256
"""Prompt and output tokens of every request."""
UNTIL_S = 360.0
RATES_RPS = {"slow": 1.5, "fast": 3.0}
A10G = replace(
    hardware("a100-40g"),
    name="a10g",
    bf16_flops=70e12,
    hbm_bytes_per_s=600e9,
    memory_bytes=24e9,
    sm_count=80,
    source="A10G data sheet peaks; kernel efficiencies of the A100",
)
KV_TOKENS = 10_000
"""The artifact's pool; it admits a request only where its prompt and whole output fit, hence the limit below."""


def two_clients() -> Trace:
    """Each sends at an even pace, as the artifact's clients do."""
    rows = sorted((at_s, name) for name, rps in RATES_RPS.items() for at_s in np.arange(0, UNTIL_S, 1 / rps))
    lengths = np.full(len(rows), LENGTH, np.int32)
    names = tuple(name for _, name in rows)
    return Trace("two clients", np.array([at_s for at_s, _ in rows]), lengths, lengths, tenant=names)


def serve(deploy: Deploy, batch: str, path: Path) -> dict[str, float]:
    """One instance like the artifact's: Llama-2-7b on an A10G."""
    spec = deploy(
        "colocated",
        latency=Roofline(A10G, model("llama-2-7b")),
        kv_blocks=KV_TOKENS // 16,
        max_sequences=KV_TOKENS // (2 * LENGTH),
    )
    policy = PolicySpec.parse(batch, "batch")
    instances = tuple(replace(instance, batch=policy) for instance in spec.instances)
    trace = two_clients()
    with EventLog(path, {"schema_version": 1, **packed({"tenant": trace.tenant})}) as log:
        simulate(replace(spec, instances=instances), trace, log)
    return summarise(read(path))


def test_the_service_gap_of_first_come_first_served_is_15_times_that_of_vtc(deploy: Deploy, tmp_path: Path) -> None:
    fcfs = serve(deploy, "unified_budget", tmp_path / "fcfs.parquet")
    vtc = serve(deploy, "vtc", tmp_path / "vtc.parquet")
    assert fcfs["service_gap"] == pytest.approx(157_000, rel=0.1), "as measured"
    assert vtc["service_gap"] < 7_900, "as measured; the paper's bound is 2 max(wp L_in, wq M) = 40 000"
    assert fcfs["service_gap"] / vtc["service_gap"] >= 15
    assert vtc["jain_service"] > 0.999
    assert fcfs["jain_service"] == pytest.approx(0.9, abs=0.01), "service 1 : 2 gives 9 / 10"
    assert vtc["makespan_s"] == pytest.approx(fcfs["makespan_s"], rel=0.01), "fairness costs no throughput"
    assert vtc["throughput_rps"] == pytest.approx(1.744, rel=0.1), "as measured"
