"""What mlfq keeps of its decodes, against ranking all of them every time."""

from __future__ import annotations

import pickle
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from policies.batch.mlfq import Mlfq
from policies.batch.ranked_decodes import RankedDecodes
from policies.batch.waiting_line import WaitingLine
from policies.testing import FakeLane, FakeSequence, fake_request, fake_sequence


@dataclass
class PausingLane(FakeLane):
    """Keeps the paused apart, as a host does."""

    ran: int = field(default=0)

    def carry_out(self, skip: frozenset[int]) -> None:
        both = [*self.decodes, *self.paused]
        self.paused = [sequence for sequence in both if sequence.request_id in skip]
        self.decodes = [sequence for sequence in both if sequence.request_id not in skip]
        for sequence in self.decodes:
            sequence.generated_tokens += 1


def ranked(policy: Mlfq, lane: FakeLane) -> list[tuple[float, int]]:
    return sorted((policy.rank_s(lane, s), s.request_id) for s in (*lane.decodes, *lane.paused))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_as_if_all_decodes_were_ranked_every_time(seed: int) -> None:
    """Decodes join, run, fall a level, finish; paused ones are cancelled; plans are dropped and policies pickled."""
    rng = random.Random(seed)
    policy = Mlfq(base_quantum_s=0.05, starvation_s=rng.choice((0.05, 2.0)), levels=5)
    kept, lane, places = RankedDecodes(policy._stay), PausingLane(), rng.randint(1, 8)
    for step in range(400):
        if rng.random() < 0.3:
            sequence = fake_sequence(step, rng.randint(1, 400), rng.randint(2, 60))
            sequence.request = sequence.request._replace(arrival_s=step / 100)
            sequence.generated_tokens = 1
            lane.decodes.append(sequence)
        for group in (lane.decodes, lane.paused):
            group[:] = [s for s in group if s.generated_tokens < s.output_tokens and rng.random() > 0.01]
        if rng.random() < 0.02:
            kept = pickle.loads(pickle.dumps(kept))
        if rng.random() < 0.05:
            places = rng.randint(1, 8)
        kept.read(lane)
        everybody = ranked(policy, lane)
        assert len(kept) == len(everybody)
        for rank in rng.sample(everybody, min(3, len(everybody))):
            assert kept.before(rank) == everybody.index(rank)
        skip = kept.beyond(places)
        assert skip == {request_id for _, request_id in everybody[places:]}
        if rng.random() < 0.9:
            lane.carry_out(skip)  # else the plan was made ahead and dropped
    assert lane.paused


def test_a_long_queue_is_read_at_its_ends_only() -> None:
    class Counting(list[Any]):
        read = 0

        def __iter__(self) -> Any:
            for item in super().__iter__():
                Counting.read += 1
                yield item

        def __reversed__(self) -> Any:
            for item in super().__reversed__():
                Counting.read += 1
                yield item

    line, lane = WaitingLine(lambda _, sequence: sequence.request.arrival_s), FakeLane()
    lane.waiting = Counting(fake_sequence(i, 10) for i in range(1000))
    line.follow(lane)
    Counting.read = 0
    lane.waiting += [FakeSequence(fake_request(2000, 10)), FakeSequence(fake_request(2001, 10))]
    lane.waiting.insert(0, FakeSequence(fake_request(3000, 10)))
    line.follow(lane)
    assert Counting.read <= 6
    assert sorted(s.request_id for s in line.walk()) == [*range(1000), 2000, 2001, 3000]


def test_a_request_that_left_the_middle_of_the_queue_is_noticed() -> None:
    line, lane = WaitingLine(lambda _, sequence: sequence.request.arrival_s), FakeLane()
    lane.waiting = [fake_sequence(i, 10) for i in range(10)]
    line.follow(lane)
    del lane.waiting[4]
    line.follow(lane)
    assert [s.request_id for s in line.walk()] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
