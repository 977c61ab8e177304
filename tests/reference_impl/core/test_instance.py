"""One instance, step by step: plans made ahead, surprises, and requests that leave in any state."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from policies.api import DECODE_ALL, BatchPlan, Chunk, LaneView, PolicyKind
from reference_impl.core.instance import Instance
from reference_impl.core.iteration import Iteration
from reference_impl.core.sequence import Sequence

Build = Callable[..., Instance]


class Script:
    """Plans what it is told; without orders, whole prompts and all decodes."""

    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "script"

    def __init__(self) -> None:
        self.orders: list[BatchPlan] = []
        self.rng = random.Random(0)

    def plan(self, lane: LaneView) -> BatchPlan:
        if self.orders:
            return self.orders.pop(0)
        whole = tuple(Chunk(s.request_id, lane.uncomputed_tokens(s)) for s in (*lane.prefilling, *lane.waiting))
        return BatchPlan(whole) if whole else DECODE_ALL


@pytest.fixture
def build(make_station: Any) -> Build:
    """An instance whose lanes follow scripts."""

    def make(role: str = "colocated", **fields: Any) -> Instance:
        instance: Instance = make_station(role, "prefill_first", 0, random.Random(0), **fields).instance
        for lane in instance.lanes:
            lane.batch = Script()
        return instance

    return make


@pytest.fixture
def sequence(new_job: Any) -> Callable[..., Sequence]:
    """A sequence of a request: id, prompt, limit of tokens, tokens that it brings, prefix ids."""

    def make(
        number: int, prompt: int = 8, limit: int | None = None, generated: int = 0, ids: tuple[int, ...] = ()
    ) -> Sequence:
        return Sequence(new_job(number, prompt, 1, ids=ids).request, limit, generated)

    return make


def planned(instance: Instance, now_s: float, lane: int = -1) -> Iteration:
    iteration = instance.plan(instance.lanes[lane], now_s)
    assert iteration is not None
    instance.check_integrity()
    return iteration


def completed(
    instance: Instance, iteration: Iteration, now_s: float, *finished: int, start_s: float | None = None
) -> None:
    instance.complete(iteration, finished, now_s, start_s)
    instance.check_integrity()


def changes(instance: Instance) -> list[tuple[Any, ...]]:
    return [row[:3] for row in instance.log.change]


def decoding(build: Build, sequence: Any, *limits: int | None, **fields: Any) -> Instance:
    """An instance on which as many requests have their first token, at 1.0."""
    instance = build(**fields)
    for number, limit in enumerate(limits):
        instance.enqueue(sequence(number, limit=limit))
    completed(instance, planned(instance, 0.0, 0), 1.0)
    return instance


def test_a_prompt_that_ends_is_decoded_in_the_iteration_planned_ahead(build: Build, sequence: Any) -> None:
    instance = build()
    instance.enqueue(sequence(0))
    first = planned(instance, 0.0)
    second = planned(instance, 0.5)
    assert (first.decodes, second.decodes, second.work.decode_context_tokens) == (0, 1, 9)
    completed(instance, first, 1.0)
    assert instance.log.prefilled == [(1.0, 0, 0, "mixed", 1)]
    completed(instance, second, 2.0, 0)
    assert instance.log.finish == [(2.0, 0, 0, "mixed", 2)]
    assert changes(instance) == []


def test_what_a_plan_made_ahead_admits_and_pauses_is_logged_for_when_it_takes_effect(
    build: Build, sequence: Any
) -> None:
    instance = decoding(build, sequence, None, None)
    first = planned(instance, 1.0)
    instance.enqueue(sequence(2))
    instance.lanes[0].batch.orders = [BatchPlan((Chunk(2, 8),), skip=frozenset((0,)))]  # type: ignore[attr-defined]
    second = planned(instance, 1.25)
    assert (len(instance.log.admit), changes(instance)) == (2, [])
    completed(instance, first, 2.0)
    assert instance.log.admit[2] == (2.0, 2, 0, "mixed", 0)
    assert changes(instance) == [(2.0, "pause", 0)]
    completed(instance, second, 3.0)
    completed(instance, planned(instance, 3.0), 4.0, 0, 1, 2)
    assert changes(instance)[1:] == [(3.0, "resume", 0)]
    assert [row[1::3] for row in instance.log.finish] == [(0, 3), (1, 4), (2, 2)]


def test_news_of_an_end_may_come_after_the_plan_on_top_was_made(build: Build, sequence: Any) -> None:
    instance = decoding(build, sequence, None)
    first = planned(instance, 1.0)
    instance.enqueue(sequence(1))
    planned(instance, 2.5)
    completed(instance, first, 2.0)
    assert instance.log.admit[1][0] == 2.5


@pytest.mark.parametrize("start_s", [1.25, 1.75])
def test_a_sequence_that_misses_a_decode_iteration_says_when_it_joins(
    build: Build, sequence: Any, start_s: float
) -> None:
    """The prefill lane ends at 1.5; the decode iteration under way, planned before, really began before that or not."""
    instance = decoding(build, sequence, None, role="semi_pd")
    decode = planned(instance, 1.0)
    instance.enqueue(sequence(1))
    completed(instance, planned(instance, 1.0, 0), 1.5)
    ahead = planned(instance, 1.5)
    assert ahead.decodes == 2
    completed(instance, decode, 2.0, start_s=start_s)
    assert changes(instance) == ([(2.0, "join", 1)] if start_s > 1.5 else [])
    completed(instance, ahead, 3.0, 0, 1)


def test_a_sequence_that_is_not_in_the_plan_made_ahead_joins_after_it(build: Build, sequence: Any) -> None:
    instance = decoding(build, sequence, None, role="semi_pd")
    decode, ahead = planned(instance, 1.0), planned(instance, 1.0)
    instance.enqueue(sequence(1))
    completed(instance, planned(instance, 1.0, 0), 1.5)
    completed(instance, decode, 2.0)
    last = planned(instance, 2.0)
    completed(instance, ahead, 3.0)
    assert changes(instance) == [(3.0, "join", 1)]
    completed(instance, last, 4.0, 0, 1)


@pytest.mark.parametrize(
    "order",
    [
        BatchPlan(preempt=(0,)),
        BatchPlan(),
        BatchPlan(skip=frozenset((0,))),
        BatchPlan(skip=frozenset((0, 1))),
        BatchPlan(decode=False),
    ],
    ids=["preempts", "has no room", "skips and has no room", "skips all", "runs nothing"],
)
def test_a_plan_made_ahead_that_must_wait_changes_nothing(build: Build, sequence: Any, order: BatchPlan) -> None:
    instance = decoding(build, sequence, None, None, kv_blocks=6)
    lane = instance.lanes[0]
    for now_s in (1.0, 2.0, 3.0):
        completed(instance, planned(instance, now_s), now_s + 1)
    fourth = planned(instance, 4.0)  # both have filled their third block
    lane.batch.orders = [order]  # type: ignore[attr-defined]
    assert instance.plan(lane, 4.5) is None
    assert (len(lane.decodes), len(lane.paused), instance.preemptions) == (2, 0, 0)
    completed(instance, fourth, 5.0)
    assert changes(instance) == []
    planned(instance, 5.0)
    assert changes(instance) == [(5.0, "preempt", 1)]


def test_who_reaches_its_limit_is_not_in_the_iteration_planned_ahead(build: Build, sequence: Any) -> None:
    instance = decoding(build, sequence, 2, 3)
    second, third = planned(instance, 1.0), planned(instance, 1.0)
    assert (second.decodes, third.decodes) == (2, 1)
    assert (instance.view(1.5).running_requests, instance.view(1.5).context_tokens) == (2, 9 + 10)
    assert instance.lanes[0].running_sequences == 1
    completed(instance, second, 2.0, 0)
    assert third.surplus == frozenset()
    assert instance.pool.used == 3  # at once: nothing under way uses the blocks of request 0
    completed(instance, third, 3.0, 1)
    assert instance.pool.used == 0


@pytest.mark.parametrize("ahead", [True, False])
def test_a_host_that_forgets_who_reached_its_limit_is_told(build: Build, sequence: Any, ahead: bool) -> None:
    instance = decoding(build, sequence, 2, None)
    second = planned(instance, 1.0)
    if ahead:
        planned(instance, 1.0)
        with pytest.raises(AssertionError, match=r"requests \[0\] reach their limit"):
            instance.complete(second, (), 2.0)
    else:
        instance.complete(second, (), 2.0)
        with pytest.raises(AssertionError, match=r"requests \[0\] have reached their limit"):
            instance.plan(instance.lanes[0], 2.0)


def test_blocks_of_a_surprise_end_return_when_the_iteration_planned_ahead_is_through(
    build: Build, sequence: Any
) -> None:
    instance = decoding(build, sequence, 9)
    second, third = planned(instance, 1.0), planned(instance, 1.0)
    completed(instance, second, 2.0, 0)
    assert instance.log.finish == [(2.0, 0, 0, "mixed", 2)]
    assert third.surplus == {0}
    assert (instance.pool.used, instance.running) == (3, 0)
    completed(instance, third, 3.0)
    assert (instance.pool.used, instance.changed) == (0, True)


def test_a_duplicate_of_a_cached_prompt_is_kept_while_an_iteration_reads_it(build: Build, sequence: Any) -> None:
    instance = build()
    for number in (0, 1):
        instance.enqueue(sequence(number, prompt=9, ids=(7, 70 + number)))
    first, second = planned(instance, 0.0), planned(instance, 0.0)
    completed(instance, first, 1.0)
    assert instance.pool.used == 6  # three blocks each: two of request 1 are a copy of what request 0 cached
    completed(instance, second, 2.0)
    assert instance.pool.used == 4


def test_only_the_oldest_iteration_can_complete_and_only_one_is_planned_ahead(build: Build, sequence: Any) -> None:
    instance = decoding(build, sequence, None)
    planned(instance, 1.0)
    second = planned(instance, 1.0)
    with pytest.raises(AssertionError, match="one iteration ahead, not two"):
        instance.plan(instance.lanes[0], 1.0)
    with pytest.raises(AssertionError, match="in the order of their plans"):
        instance.complete(second, (), 2.0)


def test_a_request_that_comes_with_tokens_goes_on_counting(build: Build, sequence: Any) -> None:
    instance = build()
    instance.enqueue(sequence(0, prompt=8, limit=5, generated=3))
    first = planned(instance, 0.0)
    assert first.prefill_tokens == 11
    second = planned(instance, 0.0)
    completed(instance, first, 1.0)
    assert instance.log.prefilled == [(1.0, 0, 0, "mixed", 4)]
    completed(instance, second, 2.0, 0)
    assert instance.log.finish == [(2.0, 0, 0, "mixed", 5)]


def test_a_limit_that_is_reached_already_is_refused(sequence: Any) -> None:
    with pytest.raises(ValueError, match="request 0 ends after 3 tokens and has 3; allowed: a limit above"):
        sequence(0, limit=3, generated=3)


# -------------------------------------------------------------------------------------------- requests that leave


def cancelled(instance: Instance, number: int, now_s: float) -> None:
    assert instance.cancel(number, now_s, "gone")
    instance.check_integrity()
    assert not instance.cancel(number, now_s, "gone")
    assert [row[1:] for row in instance.log.reject] == [(number, "gone")]


def test_a_waiting_request_can_be_cancelled(build: Build, sequence: Any) -> None:
    instance = build()
    instance.enqueue(sequence(0))
    cancelled(instance, 0, 1.0)
    assert instance.plan(instance.lanes[0], 1.0) is None


def test_an_unknown_request_cannot_be_cancelled_or_ended(build: Build) -> None:
    instance = build()
    assert not instance.cancel(0, 1.0, "gone")
    assert not instance.end(0, 1.0)
    assert not instance.log.take()


@pytest.mark.parametrize("ahead", [True, False])
def test_a_prompt_that_is_cancelled_while_it_is_computed_yields_nothing(
    build: Build, sequence: Any, ahead: bool
) -> None:
    instance = build()
    instance.enqueue(sequence(0))
    iterations = [planned(instance, 0.0)] + ([planned(instance, 0.0)] if ahead else [])
    cancelled(instance, 0, 0.5)
    assert all(iteration.surplus == {0} for iteration in iterations)
    for iteration in iterations:
        assert instance.pool.used > 0
        completed(instance, iteration, 1.0)
    assert not instance.log.prefilled
    assert instance.pool.used == 0


@pytest.mark.parametrize("taken", [True, False])
def test_a_request_to_be_handed_over_can_be_cancelled(build: Build, sequence: Any, taken: bool) -> None:
    instance = build("prefill")
    instance.enqueue(sequence(0))
    completed(instance, planned(instance, 0.0), 1.0)
    if taken:
        instance.handovers.clear()
    cancelled(instance, 0, 2.0)
    assert (instance.handovers, instance.pool.used) == ([], 0)


@pytest.mark.parametrize("reserved", [True, False])
@pytest.mark.parametrize("how", ["withdraw", "cancel", "end"])
def test_a_promise_can_be_taken_back(build: Build, sequence: Any, reserved: bool, how: str) -> None:
    instance = build("decode")
    coming = Sequence.handed_over(sequence(0).request, 1)
    instance.expect(coming)
    assert (instance.view(0.0).waiting_requests, instance.view(0.0).waiting_tokens) == (1, 8)
    if reserved:
        assert instance.reserve(coming)
        assert len(instance.reserved_blocks(0)) == instance.pool.used == 2
    instance.check_integrity()
    assert instance.withdraw(0) if how == "withdraw" else getattr(instance, how)(0, 1.0, *["gone"][: how == "cancel"])
    instance.check_integrity()
    assert (instance.pool.used, instance.waiting_tokens, instance.running, instance.inbound) == (0, 0, 0, 0)
    assert not instance.withdraw(0)
    logged = {"withdraw": {}, "cancel": {"reject": [(1.0, 0, "gone")]}, "end": {"finish": [(1.0, 0, None, None, 1)]}}
    assert instance.log.take() == logged[how]


def test_a_handed_over_sequence_decodes_in_the_blocks_that_were_reserved_for_it(build: Build, sequence: Any) -> None:
    instance = build("decode")
    coming = Sequence.handed_over(sequence(0).request, 3, 5)
    instance.expect(coming)
    assert instance.reserve(coming)
    blocks = list(instance.reserved_blocks(0))
    instance.receive(coming, 0.5, 1.0)
    assert instance.log.transfer == [(1.0, 0, 0, "decode", 10, 0.5)]
    first, second = planned(instance, 1.0), planned(instance, 1.0)
    assert instance.name_blocks(coming)[: len(blocks)] == blocks
    completed(instance, first, 2.0)
    completed(instance, second, 3.0, 0)
    assert instance.log.finish == [(3.0, 0, 0, "decode", 5)]


def test_tokens_of_iterations_under_way_do_not_count_for_a_request_that_its_host_ends(
    build: Build, sequence: Any
) -> None:
    instance = decoding(build, sequence, None)
    completed(instance, planned(instance, 1.0), 2.0)
    second, third = planned(instance, 2.0), planned(instance, 2.5)
    assert instance.end(0, 2.75)
    assert instance.log.finish == [(2.0, 0, 0, "mixed", 2)]
    completed(instance, second, 3.0)
    completed(instance, third, 4.0)
    assert instance.pool.used == 0


def test_a_namesake_of_a_cancelled_request_is_not_ended_with_it(build: Build, sequence: Any) -> None:
    instance = decoding(build, sequence, None)
    second, third = planned(instance, 1.0), planned(instance, 1.0)
    assert instance.cancel(0, 1.5, None)
    instance.enqueue(sequence(0))
    completed(instance, second, 2.0, 0)
    fourth = planned(instance, 2.0)
    completed(instance, third, 3.0, 0)
    assert instance.log.finish == []
    completed(instance, fourth, 4.0, 0)
    assert instance.log.finish == [(4.0, 0, 0, "mixed", 1)]
    assert instance.log.reject == []
