"""Instances fail, recover, become slow and change their role: nothing is lost, and closed forms stay exact."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.api import ClusterView, Dispatch, FleetView, PolicyKind, RequestView, Role, ScalePlan
from reference_impl.core.fleet_events import ChangeRole, Fail, FleetEvent, Recover, Slow
from reference_impl.core.spec import ClusterSpec, Link
from reference_impl.events import FLEET_KINDS, EventLog
from reference_impl.metrics import read, summarise, token_times
from reference_impl.simulator import Simulation
from reference_impl.simulator.fleet import NOBODY
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Rows = list[dict[str, Any]]
TOLERANCE = 1e-9


def simulate(
    spec: ClusterSpec, trace: Trace, *, fast: bool = True, path: Path | None = None
) -> tuple[Rows, Simulation]:
    """Run it; every request ends once with its tokens, and nothing is left on any instance."""
    with tempfile.TemporaryDirectory() as folder:
        return _simulate(spec, trace, fast, path or Path(folder) / "events.parquet")


def _simulate(spec: ClusterSpec, trace: Trace, fast: bool, path: Path) -> tuple[Rows, Simulation]:
    with EventLog(path, {"schema_version": 1}) as log:
        simulation = Simulation(spec, trace, log, fast=fast)
        summary = simulation.run()
        assert summary.finished + summary.rejected == len(trace)
        for instance in simulation.instances:
            instance.check_integrity()
            if instance.state != "failed":
                assert instance.pool.available == instance.pool.total
    rows: Rows = pq.read_table(path).to_pylist()
    summarise(read(path))  # warns, which is an error here, where rows do not give each request its tokens
    ends = [row["request"] for row in rows if row["kind"] in ("finish", "reject")]
    assert sorted(ends) == list(range(len(trace))), "each request ends once"
    assert all(row["tokens"] == simulation.outputs[row["request"]] for row in rows if row["kind"] == "finish")
    return rows, simulation


def told(rows: Rows, instance: int | None = None) -> list[tuple[float, str]]:
    """What the log says of instances, or of one."""
    chosen = (row for row in rows if row["kind"] in FLEET_KINDS and instance in (None, row["instance"]))
    return [(round(row["time_s"], 9), row["kind"]) for row in chosen]


def moments(rows: Rows) -> dict[tuple[Any, ...], list[tuple[float, Any]]]:
    """Every event and every end of an iteration, whatever rows they stand in."""
    found: dict[tuple[Any, ...], list[tuple[float, Any]]] = {}
    for row in rows:
        if row["kind"] == "run":
            steps = np.arange(row["iterations"])
            ends = row["first_end_s"] + steps * row["step_s"] + row["growth_s"] * steps * (steps - 1) / 2
            found.setdefault(("run", row["instance"], row["lane"]), []).extend((end, row["batch"]) for end in ends)
        else:
            key = (row["kind"], row["request"], row["instance"], row["lane"])
            found.setdefault(key, []).append((row["time_s"], row["tokens"]))
    return found


def assert_same(fast: Rows, plain: Rows) -> None:
    left, right = moments(fast), moments(plain)
    assert left.keys() == right.keys()
    for key, expected in right.items():
        assert [label for _, label in left[key]] == [label for _, label in expected], key
        got_s, expected_s = ([at_s for at_s, _ in side] for side in (left[key], expected))
        np.testing.assert_allclose(got_s, expected_s, rtol=TOLERANCE, atol=TOLERANCE, err_msg=str(key))


ROLES = [("colocated", "colocated"), ("semi_pd", "colocated"), ("prefill", "decode", "decode"), ("prefill", "decode")]


@st.composite
def schedules(draw: st.DrawFn, roles: Sequence[str]) -> tuple[FleetEvent, ...]:
    """Events that can happen, of any kind, at any place, in the busy part of the run; some at one moment."""
    events: list[FleetEvent] = []
    failed: set[int] = set()
    now_s = 0.0
    for _ in range(draw(st.integers(1, 6))):
        now_s += draw(st.sampled_from([0.0, 0.011, 2.0**-6, 0.05, 0.3]))
        place = draw(st.integers(0, len(roles) - 1))
        startup_s = draw(st.sampled_from([0.0, 0.04, 0.5]))
        kind = draw(st.sampled_from(["fail", "fail", "slow", "role"]))
        if place in failed:
            failed.discard(place)
            events.append(Recover(now_s, place, startup_s))
        elif kind == "fail":
            failed.add(place)
            events.append(Fail(now_s, place))
        elif kind == "slow":
            events.append(Slow(now_s, place, draw(st.sampled_from([0.5, 1.0, 2.0, 3.7]))))
        else:
            role: Role = draw(st.sampled_from(["prefill", "decode", "colocated"]))
            events.append(ChangeRole(now_s, place, role, startup_s))
    return tuple(events)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    count = draw(st.integers(1, 10))
    steps = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    prompts = draw(st.lists(st.integers(1, 150), min_size=count, max_size=count))
    outputs = draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))
    ids = tuple(tuple(100 * (i % 3) + j for j in range(-(-prompts[i] // 32))) for i in range(count))
    return Trace(
        "drawn",
        np.cumsum(np.array(steps, np.float64)) * draw(st.sampled_from([2.0**-7, 0.0123])),
        np.array(prompts, np.int32),
        np.array(outputs, np.int32),
        prefix_ids=ids,
        prefix_block_tokens=32,
    )


@dataclass
class Plans:
    """A scaling policy that wants one fleet after another."""

    plans: Sequence[dict[Any, Any]]
    interval_s: float = 0.07
    kind: ClassVar[PolicyKind] = "scaling"
    name: ClassVar[str] = "plans"
    asked: int = 0
    rng: random.Random = field(init=False, repr=False)

    def scale(self, fleet: FleetView) -> ScalePlan:
        self.asked += 1
        return ScalePlan(self.plans[self.asked % len(self.plans)])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_the_fleet_loses_a_request_and_closed_forms_equal_plain_stepping(
    deploy: Deploy, affine: Any, data: st.DataObject
) -> None:
    roles = data.draw(st.sampled_from(ROLES))
    trace = data.draw(traces())
    period_s, delay_s = data.draw(st.sampled_from([(None, 0.0), (None, 0.03), (0.05, 0.02)]))
    host = {
        "events": data.draw(schedules(roles)),
        "report_period_s": period_s,
        "report_delay_s": delay_s,
        "dispatch_delay_s": data.draw(st.sampled_from([0.0, 0.015])),
        "plan_ahead": data.draw(st.sampled_from([False, False, True])),
        "startup_s": data.draw(st.sampled_from([0.0, 0.05])),
        "convertible": data.draw(st.booleans()),
    }
    options: dict[str, Any] = {
        "batch": data.draw(st.sampled_from(["prefill_first", "unified_budget:token_budget=96", "chunked_prefill"])),
        "dispatch": data.draw(st.sampled_from(["round_robin", "least_loaded", "kv_cost"])),
        "latency": affine(0.007, 1e-4, 3e-5, 1.1e-6),
        "kv_blocks": data.draw(st.sampled_from([14, 24, 400])),
        "link": Link(2e6, 1e-3),
        "spec": host,
    }
    counts = st.fixed_dictionaries({role: st.integers(1, 3) for role in dict.fromkeys(roles)})
    plans = data.draw(st.none() | st.lists(counts, min_size=1, max_size=3))

    def spec() -> ClusterSpec:
        found = deploy(*roles, **options)
        return found if plans is None else replace(found, scaling=Plans(plans))

    assert_same(simulate(spec(), trace)[0], simulate(spec(), trace, fast=False)[0])


# ----------------------------------------------------------------------------------------------------------- by itself


def of_kind(rows: Rows, *kinds: str) -> list[tuple[float, int | None, int | None]]:
    """Time, request and instance of these kinds of rows."""
    return [(round(row["time_s"], 9), row["request"], row["instance"]) for row in rows if row["kind"] in kinds]


def test_a_failure_sends_requests_elsewhere_with_the_tokens_that_they_have(
    deploy: Deploy, requests: Any, tmp_path: Path
) -> None:
    """Prompts of 100 tokens take 20 ms, decodes 10 ms: at 75 ms five of the latter are complete."""
    spec = deploy("colocated", "colocated", dispatch="round_robin", spec={"events": (Fail(0.075, 0),)})
    rows, _ = simulate(spec, requests((0.0, 100, 20), (0.0, 100, 20)), path=tmp_path / "events.parquet")
    (lost,) = [row for row in rows if row["kind"] == "lost"]
    assert (lost["time_s"], lost["request"], lost["instance"], lost["tokens"]) == (0.075, 0, 0, 6)
    assert of_kind(rows, "dispatch") == [(0.0, 0, 0), (0.0, 1, 1), (0.075, 0, 1)]
    (again,) = [row for row in rows if row["kind"] == "prefilled" and row["request"] == 0 and row["instance"] == 1]
    assert again["tokens"] == 7
    times = token_times(read(tmp_path / "events.parquet"), 0)
    assert len(times) == 20
    assert times[:6] == pytest.approx(0.02 + 0.01 * np.arange(6))
    # at 80 ms the other one ends its iteration; 106 tokens take 20.6 ms
    assert times[6] == pytest.approx(0.08 + 0.0206)
    assert [kind for _, kind in told(rows)] == ["ready", "ready", "fail"]


def test_requests_wait_while_nobody_is_there_and_are_refused_when_nobody_will_come(
    deploy: Deploy, requests: Any
) -> None:
    trace = requests((0.0, 100, 5), (0.5, 100, 5))
    coming = deploy("colocated", spec={"events": (Fail(0.01, 0), Recover(1.0, 0, startup_s=2.0))})
    rows, _ = simulate(coming, trace)
    assert of_kind(rows, "dispatch") == [(0.0, 0, 0), (3.0, 0, 0), (3.0, 1, 0)]
    assert told(rows) == [(0.0, "ready"), (0.01, "fail"), (1.0, "start"), (3.0, "ready")]
    rows, _ = simulate(deploy("colocated", spec={"events": (Fail(0.01, 0),)}), trace)
    assert of_kind(rows, "reject") == [(0.01, 0, None), (0.5, 1, None)]
    assert {row["reason"] for row in rows if row["kind"] == "reject"} == {NOBODY.reason}


def test_a_recovery_may_take_longer_than_the_patience_with_a_policy(deploy: Deploy, requests: Any) -> None:
    spec = deploy("colocated", spec={"events": (Fail(0.0, 0), Recover(5000.0, 0, 1000.0)), "report_period_s": 10.0})
    rows, _ = simulate(spec, requests((0.0, 100, 5)))
    assert of_kind(rows, "finish") == [(6000.06, 0, 0)]


def test_a_cache_does_not_survive_a_failure(deploy: Deploy, requests: Any) -> None:
    trace = requests((0.0, 64, 2), (1.0, 64, 2), (3.0, 64, 2), ids=((1, 2), (1, 2), (1, 2)), block_tokens=32)
    rows, _ = simulate(deploy("colocated", spec={"events": (Fail(2.0, 0), Recover(2.0, 0))}), trace)
    assert [row["tokens"] for row in rows if row["kind"] == "admit"] == [0, 32, 0]


def test_a_slow_instance_takes_so_many_times_as_long_from_then_on(deploy: Deploy, requests: Any) -> None:
    """In the midst of a run of many iterations: 5 ms of the one under way are left, and take 15."""
    events = (Slow(0.055, 0, 3.0), Slow(0.2, 0, 1.0))
    rows, simulation = simulate(deploy("colocated", spec={"events": events}), requests((0.0, 100, 30)))
    ends = [end for end, _ in moments(rows)["run", 0, "mixed"]]
    # 20 ms of prompt, three iterations, half of one; then 15 ms, four of 30 ms, 10 of the 30 ms of the next one
    slow = [0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.16, 0.19]
    assert ends == pytest.approx([*slow, *(0.2 + 0.01 * 2 / 3 + 0.01 * np.arange(21))])
    assert sum(row["kind"] == "run" for row in rows) < 8, "it is not stepped because of that"
    busy_s = sum(row["time_s"] - row["start_s"] for row in rows if row["kind"] == "run")
    assert busy_s == pytest.approx(ends[-1])
    assert simulation.iterations == 30


def test_a_place_stays_slow_through_a_failure(deploy: Deploy, requests: Any) -> None:
    events = (Slow(0.0, 0, 2.0), Fail(0.001, 0), Recover(0.5, 0))
    rows, _ = simulate(deploy("colocated", spec={"events": events}), requests((0.0, 100, 2)))
    assert of_kind(rows, "finish") == [(0.56, 0, 0)]


def test_both_lanes_of_a_semi_pd_instance_become_slow(deploy: Deploy, requests: Any) -> None:
    trace = requests((0.0, 100, 10), (0.015, 200, 10))
    usual, _ = simulate(deploy("semi_pd"), trace)
    slow, _ = simulate(
        deploy("semi_pd", spec={"events": (Slow(0.0, 0, 2.0),)}), replace(trace, arrival_s=trace.arrival_s * 2)
    )
    assert [at_s for at_s, *_ in of_kind(slow, "finish", "prefilled")] == pytest.approx(
        [2 * at_s for at_s, *_ in of_kind(usual, "finish", "prefilled")]
    )


def test_a_change_of_role_drains_first(deploy: Deploy, requests: Any) -> None:
    """It decodes what it has; who comes meanwhile goes to the other prefill instance. Then it starts, and decodes."""
    spec = deploy(
        "colocated",
        "prefill",
        "decode",
        dispatch="round_robin",
        spec={"events": (ChangeRole(0.055, 0, "decode", startup_s=0.1),)},
    )
    rows, simulation = simulate(spec, requests((0.0, 100, 20), (0.06, 100, 5), (0.5, 100, 5), (0.6, 100, 5)))
    (finish_s,) = [at_s for at_s, request, _ in of_kind(rows, "finish") if request == 0]
    assert [(at_s, kind) for at_s, kind in told(rows, 0)] == [
        *[(0.0, "ready"), (0.055, "drain"), (finish_s, "start"), (round(finish_s + 0.1, 9), "ready")]
    ]
    assert [instance for _, _, instance in of_kind(rows, "dispatch")] == [0, 1, 1, 1]
    assert {instance for at_s, _, instance in of_kind(rows, "transfer") if at_s > 0.5} == {0, 2}
    assert [instance.spec.role for instance in simulation.instances] == ["decode", "prefill", "decode"]


def test_kv_that_was_to_go_to_an_instance_that_fails_goes_to_another_one(deploy: Deploy, requests: Any) -> None:
    """The hand-over takes from 20 to 71 ms; its destination fails in between, and it begins anew at once."""
    spec = deploy(
        "prefill", "decode", "decode", dispatch="round_robin", link=Link(2e6, 1e-3), spec={"events": (Fail(0.05, 1),)}
    )
    rows, _ = simulate(spec, requests((0.0, 100, 5)))
    assert of_kind(rows, "lost") == []
    (transfer,) = [row for row in rows if row["kind"] == "transfer"]
    assert (transfer["instance"], transfer["start_s"], transfer["time_s"]) == (
        2,
        pytest.approx(0.071),
        pytest.approx(0.122),
    )


def test_kv_is_lost_with_the_instance_that_sends_it(deploy: Deploy, requests: Any) -> None:
    events = (Fail(0.05, 0), Recover(0.06, 0))
    spec = deploy("prefill", "decode", link=Link(2e6, 1e-3), spec={"events": events})
    rows, _ = simulate(spec, requests((0.0, 100, 5)))
    assert of_kind(rows, "lost") == [(0.05, 0, 0)]
    assert [row["tokens"] for row in rows if row["kind"] == "prefilled"] == [1, 2]


def test_what_draining_instances_hold_is_sent_back_where_they_are_to_decode_it(deploy: Deploy, requests: Any) -> None:
    """Both decode instances turn to prefill, then one of them back: what it has prefilled is not the first in line."""
    events = (ChangeRole(0.0, 1, "prefill"), ChangeRole(0.0, 2, "prefill"), ChangeRole(0.2, 2, "decode"))
    spec = deploy("prefill", "decode", "decode", dispatch="round_robin", spec={"events": events})
    rows, _ = simulate(spec, requests((0.01, 100, 5), (0.02, 100, 5), (0.03, 100, 5)))
    assert of_kind(rows, "lost") == [(0.2, 2, 2)]
    assert {instance for _, _, instance in of_kind(rows, "finish")} == {2}


class NamesBoth:
    """Decides with the prompt already who decodes: instance 2; asked again, the first one."""

    kind: ClassVar[PolicyKind] = "dispatch"
    name = "names_both"
    rng = random.Random(0)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        return Dispatch(cluster.instances[0].instance_id, 2 if cluster.phase == "prefill" else None)


@pytest.mark.parametrize(("role", "decodes_on"), [("prefill", 1), ("colocated", 2)])
def test_who_was_to_decode_is_asked_anew_once_that_instance_does_not_decode_any_more(
    deploy: Deploy, requests: Any, role: Role, decodes_on: int
) -> None:
    spec = deploy("prefill", "decode", "decode", spec={"events": (ChangeRole(0.005, 2, role),)})
    policy: Any = NamesBoth()
    rows, _ = simulate(replace(spec, dispatch=policy), requests((0.0, 100, 5)))
    assert {instance for _, _, instance in of_kind(rows, "transfer")} == {decodes_on}


def test_same_schedule_and_seed_give_the_same_bytes(deploy: Deploy, requests: Any, tmp_path: Path) -> None:
    events = (Slow(0.1, 1, 2.0), Fail(0.2, 0), Recover(0.3, 0, 0.1), ChangeRole(0.4, 1, "colocated"))
    trace = requests(*((0.02 * i, 50 + i, 5 + i) for i in range(40)))
    for name in ("a", "b"):
        spec = deploy("colocated", "semi_pd", dispatch="random", spec={"events": events})
        simulate(spec, trace, path=tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ((Fail(0.0, 2),), "names instance 2; allowed: a configured one, 0 to 1"),
        ((Fail(0.0, 0), Fail(1.0, 0)), "the instance has failed already"),
        ((Recover(0.0, 0),), "the instance has not failed"),
        ((Recover(0.5, 0), Fail(0.0, 0), Recover(0.6, 0)), "the instance has not failed"),
        ((Slow(0.0, 0, 0.0),), "factor is 0.0; allowed: a finite number above 0"),
        ((Fail(-1.0, 0),), "at_s is -1.0; allowed: a finite number, 0 or more"),
        ((ChangeRole(0.0, 0, "semi_pd"),), "a semi_pd instance needs a partition policy"),
    ],
)
def test_a_schedule_that_cannot_happen_is_refused(deploy: Deploy, events: tuple[FleetEvent, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        deploy("colocated", "colocated", spec={"events": events})
