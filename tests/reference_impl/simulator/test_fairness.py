"""Two clients of one saturated instance, as VTC's paper measured them on an A10G (arXiv 2401.00588, its logs)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.api import BatchPlan, LaneView
from policies.registry import PolicySpec
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.latency.devices import hardware
from reference_impl.latency.hf_config import model
from reference_impl.latency.roofline import Roofline
from reference_impl.simulator import Summary, simulate
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


class Watched:
    """Hands on a batch policy's plans and notes, at each of them, what either client was served."""

    kind = "batch"

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.name = policy.name
        self.served = dict.fromkeys(RATES_RPS, 0.0)
        self.gaps: list[float] = []
        self._counted: dict[int, int] = {}

    def plan(self, lane: LaneView) -> BatchPlan:
        for sequence in (*lane.prefilling, *lane.decodes):
            served = min(sequence.computed_tokens, LENGTH) + 2 * sequence.generated_tokens
            self.served[sequence.request.tenant or ""] += served - self._counted.get(sequence.request_id, 0)
            self._counted[sequence.request_id] = served
        if lane.now_s <= UNTIL_S:
            self.gaps.append(abs(self.served["fast"] - self.served["slow"]))
        plan: BatchPlan = self.policy.plan(lane)
        return plan._replace(holds=False)  # to be asked at each iteration


def two_clients() -> Trace:
    """Each sends at an even pace, as the artifact's clients do."""
    rows = sorted((at_s, name) for name, rps in RATES_RPS.items() for at_s in np.arange(0, UNTIL_S, 1 / rps))
    lengths = np.full(len(rows), LENGTH, np.int32)
    names = tuple(name for _, name in rows)
    return Trace("two clients", np.array([at_s for at_s, _ in rows]), lengths, lengths, tenant=names)


def serve(deploy: Deploy, batch: str) -> tuple[Watched, Summary]:
    """One instance like the artifact's: Llama-2-7b on an A10G."""
    watched = Watched(PolicySpec.parse(batch, "batch").build(0))
    spec = deploy(
        "colocated",
        latency=Roofline(A10G, model("llama-2-7b")),
        kv_blocks=KV_TOKENS // 16,
        max_sequences=KV_TOKENS // (2 * LENGTH),
    )
    instances = tuple(replace(instance, batch=lambda seed: watched) for instance in spec.instances)
    return watched, simulate(replace(spec, instances=instances), two_clients(), EventLog(None))


def test_the_service_gap_of_first_come_first_served_is_15_times_that_of_vtc(deploy: Deploy) -> None:
    fcfs, fcfs_end = serve(deploy, "unified_budget")
    vtc, vtc_end = serve(deploy, "vtc")
    assert fcfs.gaps[-1] == pytest.approx(157_000, rel=0.1), "as measured"
    assert max(vtc.gaps) < 7_900, "as measured; the paper's bound is 2 max(wp L_in, wq M) = 40 000"
    assert fcfs.gaps[-1] / max(vtc.gaps) >= 15
    assert vtc_end.last_event_at_s == pytest.approx(fcfs_end.last_event_at_s, rel=0.01), "fairness costs no throughput"
    assert vtc_end.finished / vtc_end.last_event_at_s == pytest.approx(1.744, rel=0.1), "as measured, requests per s"
