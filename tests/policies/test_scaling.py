"""The scaling policies' exact rules; numbers of the published examples where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import pytest

from policies.api import FleetView, InstanceView, Role, ServedView
from policies.registry import PolicySpec
from policies.testing import FakeEstimate, fake_instance


def policy(text: str) -> Any:
    return PolicySpec.parse(text, "scaling").build(0)


def fleet(
    *instances: InstanceView,
    now_s: float = 0.0,
    rate_rps: float = 0.0,
    attainment: float | None = None,
    served: ServedView | None = None,
    estimate: Any = None,
    **targets: int,
) -> FleetView:
    wanted: dict[Any, int] = targets or {"colocated": len(instances)}
    return FleetView(
        now_s, instances, rate_rps, attainment, wanted, wanted, served or ServedView(), 0, estimate or FakeEstimate()
    )


def busy(requests: int, count: int = 1, role: Role = "colocated") -> tuple[InstanceView, ...]:
    return tuple(fake_instance(i, running_requests=requests, role=role) for i in range(count))


# ------------------------------------------------------------------------------------------------------ target_tracking


@pytest.mark.parametrize(
    ("instances", "now", "target", "desired"),
    [
        (3, 200, 100, 6),  # Kubernetes: "200.0 / 100.0 == 2.0", doubled
        (4, 50, 100, 2),  # "50.0 / 100.0 == 0.5", halved
        (50, 90, 75, 60),  # Kubernetes 1.33, configurable tolerance: 50 x 90/75
        (10, 109, 100, 10),  # within the tolerance of 0.1
        (10, 91, 100, 10),
        (10, 111, 100, 12),
        (3, 0, 100, 1),  # somebody has to serve
    ],
)
def test_the_desired_number_is_in_proportion_to_the_metric(instances: int, now: int, target: int, desired: int) -> None:
    found = policy(f"target_tracking:target={target},stabilisation_s=0")
    assert found.scale(fleet(*busy(now, instances))).targets == {"colocated": desired}


def test_one_interval_brings_four_more_or_twice_as_many_at_most() -> None:
    assert policy("target_tracking:target=1").scale(fleet(*busy(100, 2))).targets == {"colocated": 6}
    assert policy("target_tracking:target=1").scale(fleet(*busy(100, 7))).targets == {"colocated": 14}


def test_fewer_only_when_the_highest_desire_of_the_window_has_passed() -> None:
    found = policy("target_tracking:target=10")
    wanted = [
        found.scale(fleet(*busy(2, 5), now_s=now_s)).targets["colocated"] for now_s in (0.0, 150.0, 299.0, 300.0, 450.0)
    ]
    assert wanted == [5, 5, 5, 1, 1]


def test_instances_that_do_not_serve_yet_hold_the_next_step_back() -> None:
    found = policy("target_tracking:target=10,stabilisation_s=0")
    assert found.scale(fleet(*busy(20, 4), colocated=8)).targets == {"colocated": 8}, "idle, they bring it to target"
    assert found.scale(fleet(*busy(30, 4), colocated=8)).targets == {"colocated": 12}
    assert found.scale(fleet(*busy(0, 4), colocated=8)).targets == {"colocated": 4}, "on target, they are kept"


def test_roles_follow_their_own_instances() -> None:
    views = (*busy(40, 2, "prefill"), *(view._replace(instance_id=9) for view in busy(5, 1, "decode")))
    found = policy("target_tracking:target=10,stabilisation_s=0").scale(fleet(*views, prefill=2, decode=1))
    assert found.targets == {"prefill": 6, "decode": 1}


def test_the_metric_can_be_the_rate_the_queue_or_the_cache() -> None:
    views = tuple(fake_instance(i, waiting_requests=6, running_requests=50, context_tokens=12_800) for i in range(2))
    for text, desired in (("rate,target=2", 5), ("waiting,target=3", 4), ("kv_use,target=0.4", 4)):
        found = policy(f"target_tracking:metric={text}").scale(fleet(*views, rate_rps=10.0))
        assert found.targets == {"colocated": desired}, text


# --------------------------------------------------------------------------------------------------------- slo_feedback


def served(requests: int, ttft: float = 1.0, tpot: float = 1.0) -> ServedView:
    return ServedView(requests, ttft, tpot, 100.0, 10.0, 0.1, 0.01)


def test_missed_targets_bring_one_more_and_the_count_begins_anew() -> None:
    found = policy("slo_feedback")
    plan = found.scale(fleet(*busy(1, 2), now_s=15.0, attainment=0.8, served=served(100)))
    assert (plan.targets, plan.reason) == ({"colocated": 3}, "attainment 0.800, target 0.9")
    assert found.scale(fleet(*busy(1, 3), now_s=30.0)).targets == {}, "what was served before the step does not count"


def test_nothing_is_decided_while_an_instance_is_about_to_serve_or_on_a_few_requests() -> None:
    found = policy("slo_feedback")
    assert found.scale(fleet(*busy(1, 2), attainment=0.0, served=served(100), colocated=3)).targets == {}
    assert found.scale(fleet(*busy(1, 2), now_s=15.0, attainment=0.0, served=served(9))).targets == {}
    assert found.scale(fleet(*busy(1, 2), now_s=30.0, attainment=0.0, served=served(1))).targets == {"colocated": 3}


def test_head_room_for_the_whole_cool_down_lets_one_go() -> None:
    found = policy("slo_feedback:cooldown_s=60,window_s=30")
    shares = [0.96, 0.96, 0.90, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96]
    plans = [
        found.scale(fleet(*busy(1, 3), now_s=15.0 * i, attainment=share, served=served(100))).targets
        for i, share in enumerate(shares)
    ]
    # of 30 s: 0.93 at 30 s and 45 s, so the quiet time begins at 45 s
    assert [plan for plan in plans if plan] == [{"colocated": 2}]
    assert plans.index({"colocated": 2}) == 7
    alone = policy("slo_feedback:cooldown_s=0")
    assert alone.scale(fleet(*busy(1), now_s=1.0, attainment=1.0, served=served(100))).targets == {}


def test_the_role_whose_target_is_missed_more_gets_the_instance() -> None:
    views = (*busy(1, 1, "prefill"), *(view._replace(instance_id=9) for view in busy(1, 1, "decode")))
    for ttft, tpot, role in ((0.5, 0.9, "prefill"), (0.9, 0.5, "decode")):
        seen = fleet(*views, attainment=0.4, served=served(100, ttft, tpot), prefill=1, decode=1)
        assert policy("slo_feedback").scale(seen).targets == {role: 2}


# ------------------------------------------------------------------------------------------------------- dynamo_planner


@dataclass
class Engine:
    """Prefills and decodes so many tokens a second, whatever the batch."""

    prefill_rate: float = 40_000.0
    decode_rate: float = 10_000.0

    def prefill_s(self, new_tokens: int, context_tokens: int = 0) -> float:
        return new_tokens / self.prefill_rate

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        return sequences / self.decode_rate


def disaggregated(**more: Any) -> FleetView:
    views = (*busy(0, 1, "prefill"), *(view._replace(instance_id=9) for view in busy(0, 1, "decode")))
    return fleet(*views, prefill=1, decode=1, **more)


@pytest.mark.parametrize(
    ("requests", "decode_rate", "prefill", "decode"), [(10, 10_000, 1, 1), (500, 1000, 1, 2), (5000, 1000, 7, 13)]
)
def test_replicas_are_the_load_over_what_an_engine_does(
    requests: int, decode_rate: float, prefill: int, decode: int
) -> None:
    """Dynamo's test_replica_calculation.py: ISL 3000, OSL 150, 60 s, 40,000 prefill tokens/s (the last row is ours)."""
    seen = disaggregated(
        rate_rps=requests / 60,
        served=ServedView(requests, 1.0, 1.0, 3000.0, 150.0, 0.075, 0.01),
        estimate=Engine(decode_rate=decode_rate),
    )
    found = policy("dynamo_planner:ttft_s=0.08,itl_s=0.01,correct=false")
    assert found.scale(seen).targets == {"prefill": prefill, "decode": decode}
    assert found.interval_s == 180.0


def test_corrections_shrink_the_prefill_load_and_the_allowed_itl() -> None:
    """199 requests a second, each 0.11 s to prefill and 100 tokens to decode."""
    estimate = FakeEstimate(base_s=0.01, prompt_token_s=1e-4, decode_s_each=1e-3, context_token_s=0.0)

    def replicas(ttft_s: float, tpot_s: float, engines: int, correct: str = "true") -> dict[Role, int]:
        seen = ServedView(100, 1.0, 1.0, 1000.0, 100.0, ttft_s, tpot_s)
        views = [fake_instance(i, role="decode", total_blocks=100_000) for i in range(engines)]
        prefill = fake_instance(99, role="prefill")
        shown = fleet(*views, prefill, rate_rps=199.0, served=seen, estimate=estimate, prefill=1, decode=engines)
        found: dict[Role, int] = policy(f"dynamo_planner:correct={correct}").scale(shown).targets
        return found

    assert [replicas(ttft_s, 0.05, 25)["prefill"] for ttft_s in (0.11, 0.055, 0.55)] == [22, 11, 22]
    assert replicas(0.11, 0.06, 30, "false")["decode"] == ceil(19_900 / (40 / 0.050)), "40 sequences take 0.05 s"
    # 30 engines at 0.06 s hold 40 sequences each, which should take 0.05 s: c_d 1.2, and 31 take 0.05 / 1.2
    assert replicas(0.11, 0.06, 30)["decode"] == ceil(19_900 / (31 / 0.041))
    # 20 engines at 0.02 s hold 20 sequences each, which should take 0.03 s: c_d 2 / 3, and 65 take 0.075 s
    assert replicas(0.11, 0.02, 20)["decode"] == ceil(19_900 / (65 / 0.075))


def test_the_cache_bounds_the_batch_that_an_engine_is_taken_to_have() -> None:
    """1000 blocks of 16 tokens hold 15 contexts of 1050: 15 / 0.025 tokens/s."""
    estimate = FakeEstimate(base_s=0.01, prompt_token_s=1e-4, decode_s_each=1e-3, context_token_s=0.0)
    seen = ServedView(100, 1.0, 1.0, 1000.0, 100.0, 0.11, 0.05)
    shown = fleet(fake_instance(0, role="decode"), rate_rps=20.0, served=seen, estimate=estimate, decode=1)
    assert policy("dynamo_planner:correct=false").scale(shown).targets == {"decode": ceil(2000 / 600)}


def test_without_traffic_the_planner_keeps_what_there_is() -> None:
    assert policy("dynamo_planner").scale(disaggregated()).targets == {"prefill": 1, "decode": 1}


@pytest.mark.parametrize(
    ("waiting_tokens", "wanted"),
    [((6000, 6000), 3), ((6000, 100), 2), ((100, 100), 1), ((100, 3500), 2)],
)
def test_load_moves_a_step_where_all_instances_agree(waiting_tokens: tuple[int, int], wanted: int) -> None:
    """10 ms and 0.1 ms a token: 6000 tokens and the next 1000 take 0.71 s of the 0.5 s, 3500 take 0.46 s, over 0.4."""
    views = tuple(
        fake_instance(i, role="prefill", waiting_tokens=tokens, waiting_requests=1)
        for i, tokens in enumerate(waiting_tokens)
    )
    decode = fake_instance(9, role="decode", running_requests=390, context_tokens=390)
    seen = fleet(*views, decode, served=ServedView(9, 1, 1, 1000.0, 100.0, 0.1, 0.01), prefill=2, decode=1)
    assert policy("dynamo_planner:mode=load").scale(seen).targets == {"prefill": wanted, "decode": 1}


def test_load_waits_for_the_step_before() -> None:
    decode = fake_instance(9, role="decode", running_requests=1000, context_tokens=1000)
    assert policy("dynamo_planner:mode=load").scale(fleet(decode, decode=1)).targets == {"decode": 2}
    assert policy("dynamo_planner:mode=load").scale(fleet(decode, decode=2)).targets == {"decode": 2}


def test_an_instance_of_both_phases_grows_for_either_and_shrinks_for_both() -> None:
    """At 390 decodes an iteration takes 0.05 s: between the targets and what lets an instance go."""
    found = policy("dynamo_planner:mode=load")
    for waiting, running, wanted in ((9000, 0, 3), (0, 900, 3), (0, 350, 2), (0, 1, 1)):
        views = [
            fake_instance(i, waiting_tokens=waiting, running_requests=running, context_tokens=running) for i in (0, 1)
        ]
        assert found.scale(fleet(*views)).targets == {"colocated": wanted}, (waiting, running)


@pytest.mark.parametrize(("consolidate", "wanted"), [("false", 1), ("true", 2)])
def test_consolidation_asks_what_the_remaining_instances_would_do(consolidate: str, wanted: int) -> None:
    """Each at 0.035 s, below 0.8 x 0.05; one with the load of both would be at 0.06 s."""
    views = [fake_instance(i, role="decode", running_requests=249, context_tokens=0) for i in (0, 1)]
    assert policy(f"dynamo_planner:mode=load,consolidate={consolidate}").scale(fleet(*views, decode=2)).targets == {
        "decode": wanted
    }


def test_consolidation_counts_what_queueing_adds_to_ttft() -> None:
    """0.31 s of its own; 0.19 s are left for the queue, 0.152 s at 80 %: 1000 tokens take 0.1 s, 2000 take 0.2."""
    for waiting, wanted in ((0, 1), (500, 1), (1000, 2)):
        views = [fake_instance(i, role="prefill", waiting_tokens=waiting) for i in (0, 1)]
        seen = fleet(*views, served=ServedView(9, 1, 1, 3000.0, 100.0, 0.1, 0.01), prefill=2)
        found = policy("dynamo_planner:mode=load,consolidate=true").scale(seen)
        assert found.targets == {"prefill": wanted}, waiting
