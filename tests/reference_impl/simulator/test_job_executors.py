"""Several job executors: each decides for its own requests, from what it knows itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from policies.api import ClusterView, Dispatch, PolicyEvent, PolicyKind, RequestView
from policies.registry import PolicySpec
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.simulator import simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]


@dataclass
class Noting:
    """Notes what it is asked and told; sends everything to ``place``, from ``from_s`` on."""

    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "noting"
    from_s: float = 0.0
    rng: Any = None
    asked: list[tuple[int, str]] = field(default_factory=list)
    told: list[PolicyEvent] = field(default_factory=list)
    seen_s: list[tuple[float, ...]] = field(default_factory=list)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch | None:
        if cluster.now_s < self.from_s:
            return None
        self.asked.append((request.request_id, cluster.phase))
        self.seen_s.append(tuple(view.observed_at_s for view in cluster.instances))
        return Dispatch(cluster.instances[0].instance_id)

    def observe(self, event: PolicyEvent) -> None:
        self.told.append(event)


def with_executors(spec: ClusterSpec, *policies: Any) -> ClusterSpec:
    first, *others = policies
    return replace(spec, dispatch=first, other_executors=tuple(others))


def dispatched(spec: ClusterSpec, trace: Trace) -> dict[int, tuple[float, int]]:
    """When each request was first sent, and to which instance."""
    log = EventLog(None)
    simulate(spec, trace, log)
    rows = [row for row in log.table().to_pylist() if row["kind"] == "dispatch"]
    return {row["request"]: (row["time_s"], row["instance"]) for row in reversed(rows)}


@pytest.fixture
def four(requests: Callable[..., Trace]) -> Trace:
    return requests(*((0.1 * row, 10, 3) for row in range(4)))


def test_requests_take_turns_with_the_job_executors(deploy: Deploy, four: Trace) -> None:
    two = [PolicySpec.parse("round_robin", "dispatch").build(seed) for seed in (0, 1)]
    sent = dispatched(with_executors(deploy("colocated", "colocated"), *two), four)
    assert [sent[row][1] for row in range(4)] == [0, 0, 1, 1]


def test_a_policy_is_asked_and_told_of_its_own_requests_only(deploy: Deploy, four: Trace) -> None:
    policies = [Noting(), Noting()]
    simulate(with_executors(deploy("prefill", "decode"), *policies), four, EventLog(None))
    for policy, own in zip(policies, ((0, 2), (1, 3)), strict=True):
        assert policy.asked == [(row, phase) for row in own for phase in ("prefill", "decode")]
        assert {event.request_id for event in policy.told} <= set(own)
        told = [(event.kind, event.request_id) for event in policy.told]
        assert told[:3] == [("dispatched", own[0]), ("first_token", own[0]), ("finished", own[0])]


def test_what_one_leaves_queued_does_not_hold_up_the_others(deploy: Deploy, four: Trace) -> None:
    spec = replace(deploy("colocated", "colocated"), report_period_s=0.05)
    sent = dispatched(with_executors(spec, Noting(from_s=1.0), Noting()), four)
    assert [sent[row][0] for row in (1, 3)] == pytest.approx([0.1, 0.3])
    assert [sent[row][0] for row in (0, 2)] == pytest.approx([1.0, 1.0])


def test_reports_reach_all_of_them(deploy: Deploy, four: Trace) -> None:
    policies = [Noting(), Noting()]
    spec = replace(deploy("colocated", "colocated"), report_period_s=0.1, report_delay_s=0.1)
    simulate(with_executors(spec, *policies), four, EventLog(None))
    assert [policy.seen_s for policy in policies] == [[(0.0, 0.0), (0.1, 0.1)], [(0.0, 0.0), (0.2, 0.2)]]


def test_job_executors_that_balance_each_on_its_own_balance_worse(deploy: Deploy, affine: Any) -> None:
    """With one, the requests of a moment spread by its own counts; with four, each begins with the same instance."""
    rng = np.random.default_rng(0)
    count = 400
    trace = Trace(
        "burst",
        np.sort(rng.uniform(0, 10, count)),
        np.full(count, 500, np.int32),
        np.full(count, 20, np.int32),
    )
    ttft = {}
    for executors in (1, 4):
        policies = [PolicySpec.parse("round_robin", "dispatch").build(seed) for seed in range(executors)]
        log = EventLog(None)
        simulate(with_executors(deploy(*["colocated"] * 4, latency=affine(0.01, 1e-4)), *policies), trace, log)
        first = {row["request"]: row["time_s"] for row in log.table().to_pylist() if row["kind"] == "prefilled"}
        ttft[executors] = np.percentile([first[row] - trace.arrival_s[row] for row in range(count)], 99)
    assert ttft[4] > 1.2 * ttft[1]
