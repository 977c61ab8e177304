"""The scaling policy in virtual time: asked at its pace, shown what happened, its plans carried out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from policies.api import FleetView, PolicyError, PolicyKind, ScalePlan
from policies.registry import PolicySpec
from reference_impl.core.spec import ClusterSpec, Slo
from reference_impl.events import FLEET_KINDS, EventLog
from reference_impl.metrics import read, summarise
from reference_impl.metrics.fleet import presence
from reference_impl.simulator import Simulation
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Rows = list[dict[str, Any]]


@dataclass
class Says:
    """The next of its plans at each call, then the last one again."""

    plans: Sequence[dict[Any, Any]]
    interval_s: float | None = 1.0
    kind: ClassVar[PolicyKind] = "scaling"
    name: ClassVar[str] = "says"
    seen: list[FleetView] = field(default_factory=list)
    rng: random.Random = field(init=False, repr=False)

    def scale(self, fleet: FleetView) -> ScalePlan:
        self.seen.append(fleet)
        return ScalePlan(self.plans[min(len(self.seen), len(self.plans)) - 1], "because")


def steady(requests: int = 40, every_s: float = 0.1, prompt: int = 100, output: int = 20) -> Trace:
    return Trace(
        "steady",
        np.arange(requests, dtype=np.float64) * every_s,
        np.full(requests, prompt, np.int32),
        np.full(requests, output, np.int32),
    )


def simulate(spec: ClusterSpec, trace: Trace, *, fast: bool = True) -> tuple[Rows, Simulation]:
    log = EventLog(None)
    simulation = Simulation(spec, trace, log, fast=fast)
    summary = simulation.run()
    assert summary.finished == len(trace)
    for instance in simulation.instances:
        instance.check_integrity()
    return log.table().to_pylist(), simulation


def told(rows: Rows) -> list[tuple[float, str, int]]:
    """What the log says of instances: time, kind, instance."""
    return [
        (round(row["time_s"], 6), row["kind"], row["instance"])
        for row in rows
        if row["kind"] in FLEET_KINDS and (row["kind"] != "ready" or row["lane"] != "decode" or row["time_s"])
    ]


def test_an_instance_more_serves_after_its_start_up_and_one_fewer_drains_first(deploy: Deploy, affine: Any) -> None:
    policy = Says([{}, {"colocated": 2}, {"colocated": 2}, {"colocated": 1}])
    spec = deploy("colocated", dispatch="round_robin", latency=affine(base_s=0.02), spec={"startup_s": 0.5})
    rows, simulation = simulate(replace(spec, scaling=policy), steady())
    assert told(rows)[:4] == [(0.0, "ready", 0), (1.0, "start", 1), (1.5, "ready", 1), (3.0, "drain", 1)]
    sent = [row["time_s"] for row in rows if row["kind"] == "dispatch" and row["instance"] == 1]
    assert 1.5 <= min(sent) < max(sent) < 3.0
    (stopped_s,) = [row["time_s"] for row in rows if row["kind"] == "stop"]
    assert stopped_s == max(row["time_s"] for row in rows if row["kind"] == "finish" and row["instance"] == 1) > 3.0
    assert {row["reason"] for row in rows if row["kind"] in ("start", "drain")} == {"because"}
    assert [instance.state for instance in simulation.instances] == ["ready", "stopped"]


def test_the_policy_is_shown_what_happened_in_the_interval(deploy: Deploy) -> None:
    policy = Says([{}])
    spec = deploy("colocated", spec={"slo": Slo(ttft_s=0.021, tpot_s=0.012)})
    simulate(replace(spec, scaling=policy), steady())
    first, second = policy.seen[:2]
    assert (first.now_s, first.arrival_rate_rps, first.attainment, first.served.requests) == (0.0, 0.0, None, 0)
    assert (second.now_s, second.targets, second.outstanding_requests) == (1.0, {"colocated": 1}, 3)
    assert second.arrival_rate_rps == 11.0, "those at 0.0, 0.1, ... 1.0 s"
    done = second.served
    assert (done.requests, done.prompt_tokens, done.output_tokens) == (8, 100.0, 20.0)
    assert done.ttft_s == pytest.approx(0.02)
    assert done.tpot_s == pytest.approx(0.23 / 19), "19 iterations of 10 ms, and two prompts of 20 ms"
    assert (second.attainment, done.attainment_ttft, done.attainment_tpot) == (0.0, 1.0, 0.0)
    assert second.estimate is not None
    assert second.estimate.prefill_s(100) == pytest.approx(0.02)


def test_one_that_only_starts_is_let_go_at_once_and_bounds_hold(deploy: Deploy) -> None:
    policy = Says([{"colocated": 9}, {"colocated": 2}])
    spec = deploy("colocated", spec={"startup_s": 5.0, "max_instances": 3})
    rows, _ = simulate(replace(spec, scaling=policy), steady())
    assert told(rows) == [
        *[(0.0, "ready", 0), (0.0, "start", 1), (0.0, "start", 2)],
        (1.0, "stop", 2),
    ]


@pytest.mark.parametrize("plan", [{"colocated": 0}, {"decode": 1}, {"colocated": 1.0}, {"colocated": 1000}])
def test_a_plan_that_cannot_be_carried_out_is_refused(deploy: Deploy, plan: dict[Any, Any]) -> None:
    spec = replace(deploy("colocated"), scaling=Says([plan]))
    with pytest.raises(PolicyError, match=r"'says' decided .*; allowed: a count of 1 to 256 for each of colocated"):
        simulate(spec, steady())


def test_an_interval_that_is_none_is_refused(deploy: Deploy) -> None:
    with pytest.raises(PolicyError, match="'says' has interval_s 0; allowed: above 0, or None"):
        simulate(replace(deploy("colocated"), scaling=Says([{}], 0)), steady())


@pytest.mark.parametrize("convertible", [True, False])
def test_what_one_role_loses_and_another_gains_is_converted_where_that_is_allowed(
    deploy: Deploy, convertible: bool
) -> None:
    policy = Says([{}, {"prefill": 1, "decode": 3}])
    spec = deploy("prefill", "prefill", "decode", "decode", spec={"convertible": convertible, "startup_s": 0.2})
    rows, simulation = simulate(replace(spec, scaling=policy), steady())
    roles = [i.spec.role for i in simulation.instances if i.state == "ready"]
    assert roles == ["prefill", "decode", "decode", "decode"]
    assert len(simulation.instances) == (4 if convertible else 5)
    kinds = [kind for at_s, kind, instance in told(rows) if instance == 1 and at_s > 0]
    assert kinds == (["drain", "start", "ready"] if convertible else ["drain", "stop"])


def test_cost_and_use_follow_the_instances(deploy: Deploy, affine: Any, tmp_path: Path) -> None:
    """An instance from 1 s on that serves from 1.5 s to 3 s and is gone when it has drained, two devices each."""
    policy = Says([{}, {"colocated": 2}, {"colocated": 2}, {"colocated": 1}])
    spec = deploy("colocated", latency=affine(base_s=0.02), devices=2, spec={"startup_s": 0.5})
    path = tmp_path / "events.parquet"
    with EventLog(path, {"schema_version": 1, "instances": [{"id": 0, "role": "colocated", "kv_blocks": 1}]}) as log:
        Simulation(replace(spec, scaling=policy), steady(), log).run()
    run = read(path)
    stopped_s = float(run.rows["stop"].floats("time_s")[0])
    there = presence(run)
    assert there.device_s == pytest.approx(2 * (run.makespan_s + stopped_s - 1.0))
    assert there.lane_s == {"mixed": pytest.approx(run.makespan_s + stopped_s - 1.5)}
    assert there.block_s == pytest.approx(1000 * there.lane_s["mixed"])
    runs = run.rows["run"]
    busy_s = float((runs.floats("time_s") - runs.floats("start_s")).sum())
    assert summarise(run)["lane_utilisation_mixed"] == pytest.approx(busy_s / there.lane_s["mixed"])


def test_a_fixed_fleet_says_nothing_of_its_instances(deploy: Deploy) -> None:
    rows, _ = simulate(deploy("prefill", "decode"), steady())
    assert told(rows) == []


@pytest.mark.parametrize(
    "text",
    [
        "target_tracking:target=2,interval_s=0.3,stabilisation_s=1,up_instances=2",
        "slo_feedback:interval_s=0.2,window_s=0.5,cooldown_s=0.6,least_requests=2",
        "dynamo_planner:throughput_interval_s=0.4,itl_s=0.015",
        "dynamo_planner:mode=load,load_interval_s=0.25,ttft_s=0.05,itl_s=0.0085",
    ],
)
@pytest.mark.parametrize("roles", [("colocated",), ("prefill", "decode"), ("semi_pd",)])
def test_policies_scale_alike_in_closed_forms_and_plain_stepping(
    deploy: Deploy, affine: Any, text: str, roles: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(3)
    gaps = np.where(np.arange(120) < 80, 0.012, 0.08) * rng.exponential(1, 120)
    lengths = rng.integers(20, 200, 120).astype(np.int32), rng.integers(2, 50, 120).astype(np.int32)
    trace = Trace("burst", np.cumsum(gaps), *lengths)
    found = []
    for fast in (True, False):
        spec = deploy(*roles, latency=affine(0.007, 1e-4, 3e-5, 1.1e-6), spec={"startup_s": 0.15, "max_instances": 4})
        scaled = replace(spec, scaling=PolicySpec.parse(text, "scaling").build(0), slo=Slo(0.05, 0.0085))
        found.append(simulate(scaled, trace, fast=fast)[0])
    fast_rows, plain_rows = (sorted(told(rows)) for rows in found)
    assert fast_rows == plain_rows
    assert "start" in {kind for _, kind, _ in fast_rows}
    ends = [
        sorted((row["request"], row["instance"], round(row["time_s"], 7)) for row in rows if row["kind"] == "finish")
        for rows in found
    ]
    assert ends[0] == ends[1]
