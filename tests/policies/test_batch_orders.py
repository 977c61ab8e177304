"""Batch policies with an order of their own: exact orders and, for VTC, exact counters."""

from __future__ import annotations

import pytest

from policies.api import DECODE_ALL, BatchPlan
from policies.batch.mlfq import Mlfq
from policies.batch.vtc import Vtc
from policies.registry import ParameterError, PolicySpec
from policies.testing import FakeLane, FakeSequence, fake_request

ORDERED = ("edf_slack", "sjf_predicted", "priority", "mlfq", "vtc")


def waits(
    request_id: int,
    prompt: int = 10,
    *,
    at_s: float = 0.0,
    output: int = 10,
    tenant: str | None = None,
    slo_class: str | None = None,
    predicted: int | None = None,
) -> FakeSequence:
    request = fake_request(request_id, prompt)._replace(
        arrival_s=at_s, tenant=tenant, slo_class=slo_class, predicted_output_tokens=predicted
    )
    return FakeSequence(request, output)


def order(spec: str, *waiting: FakeSequence, now_s: float = 0.0) -> list[int]:
    """Who is admitted, in order, where there is room for all."""
    lane = FakeLane(waiting=list(waiting), now_s=now_s)
    plan = PolicySpec.parse(spec, "batch").build(0).plan(lane)
    lane.check(plan)
    return [chunk.request_id for chunk in plan.prefills]


@pytest.mark.parametrize("spec", ORDERED)
def test_equal_requests_go_first_come_first_served(spec: str) -> None:
    assert order(spec, *(waits(i, at_s=0.1 * i) for i in range(5)), now_s=0.5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("spec", ORDERED)
def test_a_cancelled_request_and_one_that_came_meanwhile_are_noticed(spec: str) -> None:
    policy = PolicySpec.parse(spec, "batch").build(0)
    lane = FakeLane(max_sequences=1, waiting=[waits(0), waits(1), waits(2), waits(3)])
    lane.apply(policy.plan(lane))
    del lane.waiting[1]
    lane.waiting.append(waits(4))
    lane.max_sequences = 64
    plan = policy.plan(lane)
    assert [chunk.request_id for chunk in plan.prefills] == [1, 3, 4]


@pytest.mark.parametrize("spec", ORDERED)
def test_only_decodes_is_the_shared_plan_that_holds(spec: str) -> None:
    lane = FakeLane(decodes=[FakeSequence(fake_request(1, 50), computed_tokens=50, generated_tokens=1)])
    assert PolicySpec.parse(spec, "batch").build(0).plan(lane) is DECODE_ALL


def test_edf_slack_starts_the_prompt_that_must_start_soonest() -> None:
    early, long = waits(0, 100, at_s=0.0), waits(1, 1500, at_s=0.1)  # prefill: 0.02 s and 0.16 s
    assert order("edf_slack", early, long, now_s=0.1) == [1, 0]
    assert order("edf_slack:order=deadline", early, long, now_s=0.1) == [0, 1]


def test_edf_slack_knows_each_class_its_target() -> None:
    spec = "edf_slack:class_ttft_s=interactive=0.5/batch=30"
    batch, unnamed, interactive = waits(0, slo_class="batch"), waits(1), waits(2, slo_class="interactive")
    assert order(spec, batch, unnamed, interactive) == [2, 1, 0]


def test_edf_slack_puts_the_hopeless_behind_those_that_can_make_it() -> None:
    late, fresh = waits(0, at_s=0.0), waits(1, at_s=5.0)
    assert order("edf_slack", late, fresh, now_s=5.0) == [1, 0]
    assert order("edf_slack:hopeless=as_due", late, fresh, now_s=5.0) == [0, 1]


def test_edf_slack_resumes_preempted_requests_first() -> None:
    preempted = FakeSequence(fake_request(9, 10)._replace(arrival_s=0.0), target_tokens=15, generated_tokens=5)
    assert order("edf_slack", waits(1, at_s=5.0), preempted, now_s=5.0) == [9, 1]


def test_earliest_deadline_first_meets_every_deadline_that_can_be_met() -> None:
    """One prompt at a time, all there from the start: if some order meets all deadlines, this one does."""
    seconds = "/".join(f"{name}={0.05 * (place + 1):.2f}" for place, name in enumerate("dbcae"))
    policy = PolicySpec.parse(f"edf_slack:order=deadline,class_ttft_s={seconds}", "batch").build(0)
    lane = FakeLane("prefill", max_sequences=1, waiting=[waits(i, 300, slo_class="abcde"[i]) for i in range(5)])
    done: list[str] = []
    while lane.waiting:
        plan = policy.plan(lane)
        done += [next(s.request.slo_class or "" for s in lane.waiting if s.request_id == c[0]) for c in plan.prefills]
        lane.apply(plan)
        assert lane.now_s <= 0.05 * len(done)
    assert done == list("dbcae")


def test_sjf_predicted_takes_the_shortest_and_counts_waiting() -> None:
    long, short = waits(0, predicted=300, at_s=0.0), waits(1, predicted=100, at_s=5.0)
    assert order("sjf_predicted:aging_tokens_per_s=0", long, short) == [1, 0]
    assert order("sjf_predicted:aging_tokens_per_s=39", long, short) == [1, 0]
    assert order("sjf_predicted:aging_tokens_per_s=41", long, short) == [0, 1]


def test_sjf_predicted_counts_prompts_as_told_and_unknown_outputs_as_256() -> None:
    one, other, unknown = waits(0, 300, predicted=100), waits(1, 100, predicted=200), waits(2, 10)
    assert order("sjf_predicted", one, other, unknown) == [0, 1, 2]
    assert order("sjf_predicted:prompt_weight=1", one, other, unknown) == [2, 1, 0]


def test_priority_is_by_class_then_arrival_and_a_minute_is_worth_a_class() -> None:
    low, none, high = waits(0, slo_class="batch"), waits(1), waits(2, at_s=100.0, slo_class="interactive")
    assert order("priority:aging_s=none", none, low, high, now_s=100) == [2, 0, 1]
    assert order("priority", low, high, now_s=100) == [2, 0]
    high = waits(2, at_s=121.0, slo_class="interactive")
    assert order("priority", low, high, now_s=121) == [0, 2]


@pytest.mark.parametrize("text", ["priority:classes=a//b", "priority:classes=a/a", "edf_slack:class_ttft_s=a=0/b"])
def test_odd_classes_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ParameterError, match=r"allowed: different names|write interactive=0.5/batch=30"):
        PolicySpec.parse(text, "batch")


class Tenants:
    """A lane under VTC."""

    def __init__(self, *waiting: FakeSequence, spec: str = "vtc", blocks: int = 1000) -> None:
        policy = PolicySpec.parse(spec, "batch").build(0)
        assert isinstance(policy, Vtc)
        self.vtc = policy
        self.lane = FakeLane(total_blocks=blocks, waiting=list(waiting))

    def step(self, *arrivals: FakeSequence) -> BatchPlan:
        self.lane.waiting += arrivals
        plan = self.vtc.plan(self.lane)
        self.lane.check(plan)
        self.lane.apply(plan)
        return plan

    def counters(self, *names: str) -> list[float]:
        self.vtc.plan(self.lane)
        return [self.vtc.counter(name) for name in names]


def test_vtc_charges_prompts_once_and_outputs_twice() -> None:
    run = Tenants(waits(0, 100, tenant="a", output=4), waits(1, 30, tenant="b", output=2))
    run.step()
    assert run.counters("a", "b") == [100 + 2, 30 + 2]
    run.step()
    assert run.counters("a", "b") == [100 + 4, 30 + 4]
    for _ in range(5):
        run.step()
    assert run.counters("a", "b") == [100 + 2 * 4, 30 + 2 * 2], "b was done after 2 tokens, a after 4"


def test_vtc_charges_an_iteration_once_however_often_it_is_asked() -> None:
    run = Tenants(waits(0, 100, tenant="a"))
    run.step()
    run.step()
    assert run.counters("a") == run.counters("a") == [104]


def test_vtc_takes_the_next_prompt_of_whom_was_served_least() -> None:
    mine = [waits(i, 40, tenant="a") for i in range(4)]
    run = Tenants(*mine, waits(10, 100, tenant="b"), waits(11, 100, tenant="b"))
    # a 0, b 0: a's came first; 42 against 0: b; 42 against 102: a, then 84: a, then 126: b.
    assert [chunk.request_id for chunk in run.step().prefills] == [0, 10, 1, 2, 11, 3]


def test_vtc_lifts_who_comes_back_to_the_least_in_the_queue() -> None:
    run = Tenants(*(waits(i, 1000, tenant="a") for i in range(3)), blocks=70)
    run.step()
    assert run.counters("a") == [1002]
    run.step(waits(7, 10, tenant="b"))
    assert run.counters("a", "b") == [1004, 1002], "a stood at 1002: b earns no credit for its absence"


def test_vtc_lifts_into_an_empty_queue_to_who_left_it_last() -> None:
    run = Tenants(waits(0, 100, tenant="a"))
    run.step()
    run.step(waits(1, 10, tenant="b"))
    assert run.counters("a", "b") == [104, 102 + 10 + 2]


def test_vtc_admits_nobody_past_a_prompt_that_does_not_fit_and_promises_nothing_while_another_would() -> None:
    run = Tenants(waits(0, 16 * 8, tenant="c", output=99), blocks=16)
    run.step()
    plan = run.step(waits(1, 16 * 9, tenant="a"), waits(2, 16, tenant="b"))
    assert plan == BatchPlan(), "a's comes first and does not fit; b's would"
    assert not plan.holds
    other = Tenants(waits(0, 16 * 8, tenant="c", output=99), blocks=16)
    other.step()
    assert other.step(waits(1, 16 * 9, tenant="a"), waits(2, 16 * 9, tenant="b")) is DECODE_ALL


def test_vtc_forgets_idle_tenants_beyond_its_limit() -> None:
    run = Tenants(spec="vtc:max_tenants=2")
    for i, name in enumerate("abcd"):
        run.step(waits(i, 10, tenant=name, output=1))
    assert [run.vtc.counter(name) for name in "ab"] == [0, 0]
    assert run.vtc.counter("d") > 0


def mlfq(**parameters: object) -> Mlfq:
    made = PolicySpec.of("batch", "mlfq", {"base_quantum_s": 0.02, "levels": 6, **parameters}).build(0)
    assert isinstance(made, Mlfq)
    return made


def decodes(request_id: int, generated: int, *, at_s: float = 0.0, prompt: int = 10) -> FakeSequence:
    request = fake_request(request_id, prompt)._replace(arrival_s=at_s)
    return FakeSequence(request, 10_000, computed_tokens=prompt + generated - 1, generated_tokens=generated)


@pytest.mark.parametrize(("prompt", "level"), [(1, 0), (100, 0), (101, 1), (300, 1), (301, 2), (700, 2), (9000, 5)])
def test_mlfq_is_joined_at_the_level_whose_quantum_covers_the_prefill(prompt: int, level: int) -> None:
    assert mlfq().level(FakeLane(), waits(0, prompt)) == level  # prefill: 10 ms and 0.1 ms a token; quanta: 20, 40, ...


def test_mlfq_falls_a_level_with_each_quantum_used() -> None:
    # Prefill 11 ms, each further token about 10.1 ms; quanta of 20, 40, 80 ... end at 20, 60, 140 ms.
    levels = [mlfq().level(FakeLane(), decodes(0, generated)) for generated in range(1, 16)]
    assert levels == [0] + 4 * [1] + 8 * [2] + 2 * [3]


def test_mlfq_pauses_the_decodes_that_have_used_most() -> None:
    lane = FakeLane(decodes=[decodes(0, 100), decodes(1, 1), decodes(2, 9)])
    assert mlfq(batch_sequences=2).plan(lane) == BatchPlan(skip=frozenset({0}))
    assert mlfq(batch_sequences=3).plan(lane) is DECODE_ALL


def test_mlfq_computes_a_new_prompt_in_the_place_of_a_long_decode() -> None:
    lane = FakeLane(decodes=[decodes(0, 100), decodes(1, 1)], waiting=[waits(7, 50), waits(8, 3000)])
    plan = mlfq(batch_sequences=2).plan(lane)
    assert [chunk.request_id for chunk in plan.prefills] == [7]
    assert plan.skip == {0}
    lane.check(plan)


def test_mlfq_lets_nobody_starve() -> None:
    lane = FakeLane(decodes=[decodes(0, 9, at_s=0.0), decodes(1, 1, at_s=59.0)])
    assert mlfq(batch_sequences=1, starvation_s=30.0).plan(lane).skip == {0}, "two levels for two times 30 s: not yet"
    lane = FakeLane(decodes=[decodes(0, 9, at_s=0.0), decodes(1, 1, at_s=61.0)])
    assert mlfq(batch_sequences=1, starvation_s=30.0).plan(lane).skip == {1}
