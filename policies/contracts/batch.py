"""The contract of batch policies."""

from __future__ import annotations

import pickle
import random
from copy import deepcopy
from typing import Any, ClassVar

from policies.api import BatchPlan, LaneKind, PolicyKind
from policies.contracts.base import Handover, PolicyContract, keep
from policies.contracts.fakes import fake_request
from policies.contracts.lane import FakeLane, FakeSequence, fake_sequence

_ARRIVALS_UNTIL = 60
_MOST_ITERATIONS = 20_000


class BatchContract(PolicyContract):
    kind: ClassVar[PolicyKind] = "batch"
    lanes: ClassVar[tuple[LaneKind, ...]] = ("mixed", "prefill", "decode")
    """The lanes that the policy is for."""

    def decisions(self, policy: Any, seed: int, handover: Handover = keep) -> list[object]:
        """Plans of one lane until all its work is done; fails where it hangs or a plan cannot be carried out."""
        rng = random.Random(seed)
        lane = random_lane(rng, self.lanes[seed % len(self.lanes)])
        made: list[object] = []
        for iteration in range(_MOST_ITERATIONS):
            if iteration < _ARRIVALS_UNTIL and rng.random() < 0.3:
                arrive(rng, lane, request_id=iteration)
            if not (lane.waiting or lane.prefilling or lane.decodes):
                if iteration >= _ARRIVALS_UNTIL:
                    return made
                continue
            policy = handover(policy)
            plan = self.checked_plan(policy, lane)
            made.append(plan)
            assert lane.apply(plan) or lane.foreign_blocks, f"{plan}: nothing runs although work waits: {lane}"
            lane.foreign_blocks = 0 if iteration >= _ARRIVALS_UNTIL else rng.choice((0, 0, lane.foreign_blocks, 5))
        raise AssertionError(f"work is left after {_MOST_ITERATIONS} iterations: {lane}")

    def checked_plan(self, policy: Any, lane: FakeLane) -> BatchPlan:
        """The policy's plan for this lane, which stays as it is; fails unless a host could carry it out."""
        before = lane.state()
        plan = policy.plan(lane)
        assert lane.state() == before, "the policy changed the lane view; views are read-only"
        assert isinstance(plan, BatchPlan), f"{plan!r}: a BatchPlan"
        lane.check(plan)
        return plan

    def test_a_plan_that_holds_is_returned_again(self) -> None:
        for seed in self.seeds:
            rng = random.Random(seed)
            lane = random_lane(rng, self.lanes[seed % len(self.lanes)])
            policy = self.make(seed)
            for iteration in range(2 * _ARRIVALS_UNTIL):
                if iteration < _ARRIVALS_UNTIL and rng.random() < 0.2:
                    arrive(rng, lane, request_id=iteration)
                plan = self.checked_plan(policy, lane)
                if plan.holds:
                    self.repeat(pickle.loads(pickle.dumps(policy)), deepcopy(lane), plan, rng)
                lane.apply(plan)

    def repeat(self, policy: Any, lane: FakeLane, plan: BatchPlan, rng: random.Random) -> None:
        """Carry out ``plan`` again and again, other lanes taking blocks meanwhile, until the promise ends."""
        for _ in range(50):
            decodes, prefilling = _ids(lane.decodes), _ids(lane.prefilling)
            lane.apply(plan)
            lane.foreign_blocks += rng.randrange(2)
            planned = {request_id for request_id, _ in plan.prefills}
            if _ids(lane.decodes) != decodes or _ids(lane.prefilling) != prefilling | planned:
                return
            if not _repeatable(lane, plan):
                return
            again = self.checked_plan(policy, lane)
            assert again[:4] == plan[:4], f"promised to return {plan} again, returned {again} for {lane}"

    def test_a_prompt_that_needs_the_whole_pool_is_admitted_when_nothing_else_runs(self) -> None:
        for kind in self.lanes:
            if kind != "decode":
                for blocks in (1, 10, 100, 1000):
                    lane = FakeLane(kind, total_blocks=blocks, waiting=[fake_sequence(1, blocks * 16 - 1)])
                    plan = self.checked_plan(self.make(0), lane)
                    assert [chunk.request_id for chunk in plan.prefills] == [1], f"{plan}: request 1 waits for ever"

    def test_running_decodes_run_when_nothing_waits(self) -> None:
        for kind in self.lanes:
            if kind != "prefill":
                lane = FakeLane(kind, decodes=[fake_sequence(i, 50, computed=50) for i in range(3)])
                plan = self.checked_plan(self.make(0), lane)
                assert plan.decode
                assert len(plan.skip) < 3, f"{plan}: nobody decodes"


def random_lane(rng: random.Random, kind: LaneKind) -> FakeLane:
    """An empty lane with random limits; its pool holds a few of the requests that :func:`arrive` makes."""
    return FakeLane(
        kind,
        total_blocks=rng.choice((45, 80, 400)),
        max_sequences=rng.choice((2, 8, 64)),
        max_batch_tokens=rng.choice((64, 512, 2048)),
    )


def arrive(rng: random.Random, lane: FakeLane, request_id: int) -> None:
    """One more request, of at most 640 tokens all told: it waits, or on a decode lane it joins if there is room.

    It has one of three tenants, SLO classes and predictions, or none.
    """
    prompt, output = rng.randint(1, 540), rng.randint(2, 100)
    request = fake_request(request_id, prompt)._replace(
        arrival_s=lane.now_s,
        tenant=(None, "a", "b", "c")[request_id % 4],
        slo_class=(None, "interactive", "batch")[request_id % 3],
        predicted_output_tokens=(None, 10, 100, output)[request_id // 2 % 4],
    )
    if lane.kind != "decode":
        hit = rng.choice((0, 0, (prompt - 1) // 16 * 16))
        lane.waiting.append(FakeSequence(request, output, hit))
    elif lane.free_blocks > -(-prompt // 16) and lane.running_sequences < lane.max_sequences:
        lane.decodes.append(FakeSequence(request, output, computed_tokens=prompt, generated_tokens=1))


def _ids(sequences: list[FakeSequence]) -> set[int]:
    return {sequence.request_id for sequence in sequences}


def _repeatable(lane: FakeLane, plan: BatchPlan) -> bool:
    """Whether more than another chunk is left of every planned prefill, and the blocks for one more round are there."""
    sequences = {sequence.request_id: sequence for sequence in lane.prefilling}
    need = lane.decode_blocks if plan.decode else 0
    for request_id, tokens in plan.prefills:
        if lane.uncomputed_tokens(sequences[request_id]) <= tokens:
            return False
        need += lane.blocks_needed(sequences[request_id], tokens)
    return need <= lane.free_blocks
