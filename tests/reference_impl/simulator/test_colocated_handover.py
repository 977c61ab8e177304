"""One colocated instance prefills, another one decodes, because dispatch said so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from policies.api import ClusterView, Dispatch, PolicyError, RequestView
from reference_impl.core.fleet_events import Fail
from reference_impl.core.spec import ClusterSpec, Link
from reference_impl.events import EventLog
from reference_impl.metrics import read, rebuild
from reference_impl.metrics.phases import Phases
from reference_impl.metrics.tokens import check
from reference_impl.simulator import Simulation
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Requests = Callable[..., Trace]


@dataclass
class Fixed:
    """Always the same instance, and the same decode instance."""

    decision: Dispatch
    kind: str = "dispatch"
    name: str = "fixed_pair"

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        return self.decision


@dataclass
class Pairs(Fixed):
    """Request by request."""

    pairs: tuple[tuple[int, int], ...] = ()

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        return Dispatch(*self.pairs[request.request_id])


def rows(
    spec: ClusterSpec, trace: Trace, decision: Dispatch | tuple[tuple[int, int], ...], *, fast: bool = True
) -> list[dict[str, Any]]:
    policy: Any = Fixed(decision) if isinstance(decision, Dispatch) else Pairs(Dispatch(0), pairs=decision)
    log = EventLog(None)
    simulation = Simulation(replace(spec, dispatch=policy), trace, log, fast=fast)
    simulation.run()
    for instance in simulation.instances:
        instance.check_integrity()
        assert instance.pool.available == instance.pool.total
    found: list[dict[str, Any]] = log.table().to_pylist()
    return found


def of_kind(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in found if row["kind"] == kind]


@pytest.mark.parametrize("plan_ahead", [False, True])
def test_the_kv_moves_and_the_other_instance_decodes(deploy: Deploy, requests: Requests, plan_ahead: bool) -> None:
    spec = deploy("colocated", "colocated", spec={"plan_ahead": plan_ahead})
    found = rows(spec, requests((0.0, 100, 3)), Dispatch(0, 1))
    (prefilled,), (moved,), (finish,) = (of_kind(found, kind) for kind in ("prefilled", "transfer", "finish"))
    assert (prefilled["instance"], moved["instance"], finish["instance"]) == (0, 1, 1)
    assert prefilled["time_s"] == pytest.approx(0.02)
    assert moved["time_s"] == pytest.approx(0.02 + 1e-3 + 100 * 1000 / 1e9)
    assert finish["time_s"] == pytest.approx(moved["time_s"] + 2 * 0.01)


def test_an_instance_that_is_its_own_decode_instance_keeps_the_request(deploy: Deploy, requests: Requests) -> None:
    trace = requests((0.0, 100, 3), (0.0, 50, 2))
    named, left_open = (rows(deploy("colocated", "colocated"), trace, each) for each in (Dispatch(0, 0), Dispatch(0)))
    assert named == left_open
    assert not of_kind(named, "transfer")


def test_a_colocated_instance_can_hand_over_to_a_decode_instance(deploy: Deploy, requests: Requests) -> None:
    found = rows(deploy("colocated", "prefill", "decode"), requests((0.0, 100, 3)), Dispatch(0, 2))
    assert [row["instance"] for row in of_kind(found, "finish")] == [2]


@pytest.mark.parametrize("at_s", [0.015, 0.0205])
def test_a_request_whose_other_instance_fails_before_it_has_the_kv_begins_anew(
    deploy: Deploy, requests: Requests, at_s: float
) -> None:
    @dataclass
    class WhileThere(Fixed):
        def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
            there = any(view.instance_id == 1 for view in cluster.instances)
            return self.decision if there else Dispatch(0)

    spec = deploy("colocated", "colocated", spec={"events": (Fail(at_s, 1),)})
    log = EventLog(None)
    policy: Any = WhileThere(Dispatch(0, 1))
    Simulation(replace(spec, dispatch=policy), requests((0.0, 100, 3)), log).run()
    found = log.table().to_pylist()
    assert [row["instance"] for row in of_kind(found, "lost")] == [0]
    assert [row["instance"] for row in of_kind(found, "finish")] == [0]


def test_while_a_hand_over_waits_for_the_link_the_request_gets_no_token_where_it_was_prefilled(
    deploy: Deploy, requests: Requests, tmp_path: Path
) -> None:
    @dataclass
    class ToTheOther(Fixed):
        def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
            return Dispatch(request.request_id % 2, 1 - request.request_id % 2)

    policy: Any = ToTheOther(Dispatch(0, 1))
    spec = replace(deploy("colocated", "colocated", link=Link(2e6)), dispatch=policy)
    with EventLog(tmp_path / "events.parquet", {"schema_version": 1, "instances": []}) as log:
        Simulation(spec, requests(*((0.01 * place, 100, 30) for place in range(8))), log).run()
    run = read(tmp_path / "events.parquet")
    tokens = rebuild(run)
    check(run, tokens)
    assert tokens.counts(8).tolist() == [30] * 8
    for request in range(2, 8):
        names = [phase.name for phase in Phases(run).of(request)]
        assert names[-3:] == ["handover_wait", "transfer", "decode"]
        assert names.count("decode") == 1


def test_a_request_that_is_preempted_where_it_decodes_is_prefilled_there(deploy: Deploy, requests: Requests) -> None:
    spec = deploy("colocated", "colocated", kv_blocks=9)
    found = rows(spec, requests((0.0, 60, 40), (0.0, 60, 40)), Dispatch(0, 1))
    assert of_kind(found, "preempt")
    assert {row["instance"] for row in of_kind(found, "prefilled")} == {0, 1}
    assert {row["instance"] for row in of_kind(found, "finish")} == {1}


def test_a_prefill_instance_cannot_be_a_decode_instance(deploy: Deploy, requests: Requests) -> None:
    with pytest.raises(PolicyError, match=r"one of the decode and colocated instances \[0, 2\] or none"):
        rows(deploy("colocated", "prefill", "decode"), requests((0.0, 100, 3)), Dispatch(0, 1))


def places(found: list[dict[str, Any]], kind: str) -> dict[int, int]:
    return {row["request"]: row["instance"] for row in of_kind(found, kind)}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("blocks", "prompts", "pairs", "stays"),
    [
        pytest.param((17, 17), (100, 200), ((0, 1), (1, 0)), 1, id="two"),
        pytest.param((17, 17), (200, 100), ((1, 0), (0, 1)), 0, id="not the latest but the one that goes downwards"),
        pytest.param((17, 17, 17), (150, 160, 170), ((1, 2), (2, 0), (0, 1)), 1, id="three"),
        pytest.param((17, 17), (90, 100, 110, 120), ((0, 1), (1, 0), (0, 1), (1, 0)), 3, id="the latest of several"),
    ],
)
def test_of_hand_overs_that_wait_for_one_another_one_stays(
    deploy: Deploy,
    requests: Requests,
    blocks: tuple[int, ...],
    prompts: tuple[int, ...],
    pairs: tuple[tuple[int, int], ...],
    stays: int,
    fast: bool,
) -> None:
    spec = deploy(*["colocated"] * len(blocks), kv_blocks=blocks[0])
    found = rows(spec, requests(*((0.0, prompt, 20) for prompt in prompts)), pairs, fast=fast)
    meant = {request: decode for request, (_, decode) in enumerate(pairs)}
    assert places(found, "finish") == {**meant, stays: pairs[stays][0]}
    assert not of_kind(found, "preempt"), "nothing is computed twice"


def test_seats_that_are_waited_for_in_a_circle_are_given_up_too(deploy: Deploy, requests: Requests) -> None:
    trace = requests(*((0.0, 20, 20) for _ in range(4)))
    found = rows(deploy("colocated", "colocated", max_sequences=2), trace, ((0, 1), (1, 0)) * 2)
    assert places(found, "finish") == {0: 1, 1: 0, 2: 1, 3: 1}


def uneven(deploy: Deploy, *blocks: int, **fields: Any) -> ClusterSpec:
    spec = deploy(*["colocated"] * len(blocks), **fields)
    instances = tuple(replace(one, kv_blocks=count) for one, count in zip(spec.instances, blocks, strict=True))
    return replace(spec, instances=instances)


def test_who_waits_for_an_instance_that_decodes_goes_there(deploy: Deploy, requests: Requests) -> None:
    trace = requests((0.0, 160, 30), (0.0, 200, 2), (0.0, 120, 2))
    found = rows(uneven(deploy, 30, 20), trace, ((0, 0), (1, 0), (0, 1)))
    assert places(found, "finish") == {0: 0, 1: 0, 2: 1}
    (ends_s,) = (row["time_s"] for row in of_kind(found, "finish") if row["request"] == 0)
    first, _ = of_kind(found, "transfer")
    assert (first["request"], first["start_s"]) == (1, ends_s)


def test_what_does_not_fit_where_it_would_stay_begins_anew(deploy: Deploy, requests: Requests) -> None:
    found = rows(uneven(deploy, 14, 12), requests((0.0, 150, 60), (0.0, 100, 10)), ((1, 0), (0, 1)))
    assert places(found, "lost") == {0: 1}
    assert places(found, "finish") == {0: 0, 1: 1}


def test_who_leaves_makes_room_at_once_for_who_waits_to_come(deploy: Deploy, requests: Requests) -> None:
    spec = uneven(deploy, 17, 20, link=Link(1e9, 0.1))
    found = rows(spec, requests((0.0, 72, 2), (0.0, 200, 2)), ((0, 1), (1, 0)))
    left, came = of_kind(found, "transfer")
    assert [(row["request"], row["instance"]) for row in (left, came)] == [(0, 1), (1, 0)]
    assert came["start_s"] == left["time_s"]


def test_the_time_until_a_hand_over_is_given_up_is_one_of_waiting(
    deploy: Deploy, requests: Requests, tmp_path: Path
) -> None:
    policy: Any = Pairs(Dispatch(0), pairs=((0, 1), (1, 0), (1, 1)))
    spec = replace(deploy("colocated", "colocated", kv_blocks=17), dispatch=policy)
    with EventLog(tmp_path / "events.parquet", {"schema_version": 1, "instances": []}) as log:
        Simulation(spec, requests((0.0, 100, 3), (0.0, 180, 5), (0.0, 10, 9)), log).run()
    run = read(tmp_path / "events.parquet")
    check(run, rebuild(run))
    phases = [(phase.name, phase.instance) for phase in Phases(run).of(1)]
    assert phases[-2:] == [("handover_wait", 1), ("decode", 1)]
