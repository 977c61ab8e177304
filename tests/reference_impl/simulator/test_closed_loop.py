"""Sessions in closed loop, in virtual time: a turn comes after the answer before it, and the client's pause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from policies.api import ClusterView, Dispatch, PolicyKind, RequestView
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.simulator import Summary, simulate
from workloads.errors import TraceError
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Times = dict[int, float]


@dataclass
class Hesitant:
    """Decides about a request once it has waited for a second."""

    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "hesitant"
    rng: Any = None

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch | None:
        return Dispatch(0) if cluster.now_s >= request.arrival_s + 1.0 else None


def run(spec: ClusterSpec, trace: Trace, **options: Any) -> tuple[dict[str, Times], Summary]:
    """When each request had its event of a kind, by kind."""
    log = EventLog(None)
    summary = simulate(spec, trace, log, closed_loop=True, **options)
    times: dict[str, Times] = {}
    for row in log.table().to_pylist():
        times.setdefault(row["kind"], {})[row["request"]] = row["time_s"]
    return times, summary


def sessions(prompt: tuple[int, ...] = (100, 200, 300), think_s: float = 2.0) -> Trace:
    """Three turns that wait for one another, recorded at times that are of no account."""
    return Trace(
        "turns",
        np.array([1.0, 1.0, 1.0]),
        np.array(prompt, np.int32),
        np.array([5, 5, 5], np.int32),
        parent_row=np.array([-1, 0, 1]),
        think_s=np.array([0.0, think_s, think_s]),
    )


def many(seed: int, count: int = 40) -> Trace:
    """Sessions of four turns each; some think no time at all."""
    rng = np.random.default_rng(seed)
    rows = 4 * count
    parents = np.array([row - count if row >= count else -1 for row in range(rows)])
    thinks = np.where(parents < 0, 0.0, rng.choice([0.0, 0.05, 0.5], rows))
    arrivals = np.sort(rng.uniform(0, 5, count))
    return Trace(
        "many",
        np.concatenate([arrivals, np.full(rows - count, 5.0)]),
        rng.integers(1, 400, rows).astype(np.int32),
        rng.integers(1, 60, rows).astype(np.int32),
        parent_row=parents,
        think_s=thinks,
    )


def test_a_turn_comes_its_think_time_after_the_answer_before_it(deploy: Deploy) -> None:
    times, summary = run(deploy("colocated"), sessions())
    assert times["arrive"][0] == 1.0
    for turn in (1, 2):
        assert times["arrive"][turn] == times["finish"][turn - 1] + 2.0
    assert (summary.finished, summary.turns_after_rejection) == (3, 0)


def test_reports_go_on_while_everybody_thinks(deploy: Deploy) -> None:
    spec = replace(deploy("colocated", "colocated"), report_period_s=0.1)
    times, _ = run(spec, sessions(think_s=3000.0))
    assert times["arrive"][2] == times["finish"][1] + 3000.0


def test_a_turn_after_a_long_pause_may_be_left_queued_like_any_other(deploy: Deploy) -> None:
    """Its job executor's policy has the patience of a new request, not that since the answer before."""
    spec = replace(deploy("colocated", "colocated"), report_period_s=0.1, dispatch=Hesitant())
    times, _ = run(spec, sessions(think_s=3000.0))
    assert times["dispatch"][1] == pytest.approx(times["arrive"][1] + 1.0, abs=0.2)


def test_a_session_goes_on_after_a_request_that_was_rejected(deploy: Deploy) -> None:
    times, summary = run(deploy("colocated"), sessions(prompt=(100, 50_000, 300)))
    assert times["reject"] == {1: times["arrive"][1]}
    assert times["arrive"][2] == times["reject"][1] + 2.0
    assert (summary.finished, summary.rejected, summary.turns_after_rejection) == (2, 1, 1)


@pytest.mark.parametrize("roles", [("colocated", "colocated"), ("semi_pd",), ("prefill", "decode")])
def test_runs_in_one_step_give_the_times_of_plain_stepping(deploy: Deploy, roles: Any) -> None:
    for seed in (0, 1):
        (fast, _), (plain, _) = (run(deploy(*roles), many(seed), fast=fast) for fast in (True, False))
        assert fast["finish"].keys() == plain["finish"].keys() == set(range(160))
        for kind in ("arrive", "prefilled", "finish"):
            assert fast[kind] == pytest.approx(plain[kind], abs=1e-9)


def test_a_turn_without_a_pause_joins_another_instance_after_all_that_ends_in_that_moment(deploy: Deploy) -> None:
    """Both instances step in unison: the turn must not join an iteration of instance 0 that ends as its parent does."""
    trace = Trace(
        "unison",
        np.zeros(3),
        np.full(3, 10, np.int32),
        np.array([50, 10, 5], np.int32),
        parent_row=np.array([-1, -1, 1]),
        think_s=np.zeros(3),
    )
    (fast, _), (plain, _) = (
        run(deploy("colocated", "colocated", dispatch="round_robin"), trace, fast=fast) for fast in (True, False)
    )
    assert fast["arrive"][2] == fast["finish"][1]
    for kind in ("admit", "prefilled", "finish"):
        assert fast[kind] == pytest.approx(plain[kind], abs=1e-9)


def test_a_slower_fleet_is_offered_the_same_requests_later(deploy: Deploy, affine: Any) -> None:
    quick, slow = (run(deploy("colocated", latency=affine(base_s)), many(0))[0] for base_s in (0.01, 0.05))
    assert quick["arrive"].keys() == slow["arrive"].keys()
    assert max(slow["arrive"].values()) > max(quick["arrive"].values()) + 1.0


def test_a_trace_without_sessions_is_refused(deploy: Deploy, requests: Callable[..., Trace]) -> None:
    with pytest.raises(TraceError, match="no column parent_row"):
        simulate(deploy("colocated"), requests((0.0, 5, 5)), EventLog(None), closed_loop=True)
