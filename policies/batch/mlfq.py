"""Whoever has used least goes first: queues with growing quanta, entered at the level of the prompt.

Idea
    Level i has a quantum of ``base_quantum_s`` times ``growth``^i. A request joins the first level whose quantum covers
    its first iteration (its prefill), skipping those above, and falls one level each time that it has used its quantum
    up. Each iteration computes the ``batch_sequences`` requests of the highest levels, first come first within one;
    new prompts thereby pause decodes of lower levels, which keep their KV. A request rises one level for each
    ``starvation_s`` in which it is not served. Use is counted in the request's own time (prefill, then one decode
    iteration alone for each token), so that the order depends on tokens only and not on who shares an iteration.
    Plans hold while no more than ``batch_sequences`` requests are there (running and waiting) or no place is free;
    else every iteration is planned, since each token may change who is in.
Reads
    Arrival, prompt and generated tokens of everybody; the latency estimate; blocks and limits of the lane.
Parameters
    batch_sequences: most requests that one iteration computes.
    base_quantum_s: quantum of the highest level, seconds; none: the shortest iteration, one decode alone.
    growth: by how much a level's quantum exceeds that of the level above it.
    levels: number of levels; the last one has no end.
    starvation_s: seconds without service that are worth one level.
    token_budget: tokens of one iteration; none: the engine's limit.
Source
    FastServe (arXiv 2305.05920; NSDI'26), skip-join MLFQ: quanta from the shortest iteration on, doubling. It promotes
    a starving request to the highest level at once, and swaps KV to host memory ahead of need; neither is done here.
    The defaults of batch_sequences, levels and starvation_s are OURS.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, ClassVar, NamedTuple

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range, SequenceView
from policies.batch.mixed import mixed
from policies.batch.waiting_line import WaitingLine


class _Stay(NamedTuple):
    """A decode's rank while it stays on its level: ``base_s + step_s * generated``, below ``until`` tokens."""

    base_s: float
    step_s: float
    until: float


@dataclass
class Mlfq:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "mlfq"
    batch_sequences: Annotated[int, Range(1, 4096, log=True)] = 128
    base_quantum_s: Annotated[float | None, Range(0.0001, 60, log=True)] = None
    growth: Annotated[float, Range(1.1, 16, log=True)] = 2.0
    levels: Annotated[int, Range(1, 32)] = 12
    starvation_s: Annotated[float, Range(0.01, 3600, log=True)] = 30.0
    token_budget: Annotated[int | None, Range(1, 131072, log=True)] = None
    rng: random.Random = field(init=False, repr=False)
    _line: WaitingLine = field(init=False, repr=False)
    _stays: dict[int, _Stay] = field(init=False, repr=False, default_factory=dict)
    """Of the decodes at the last crowded plan."""

    def __post_init__(self) -> None:
        self._line = WaitingLine(self.rank_s)

    def plan(self, lane: LaneView) -> BatchPlan:
        running = len(lane.decodes) + len(lane.paused)
        started = len(lane.prefilling)
        if not lane.waiting and not started and running <= self.batch_sequences:
            return DECODE_ALL
        self._line.follow(lane)
        full = lane.running_sequences >= lane.max_sequences
        newcomers = 0 if full else len(lane.waiting)
        if running + started + newcomers <= self.batch_sequences:
            return self._mixed(lane, running, self._line.walk())
        return self._crowded(lane, started)

    def _crowded(self, lane: LaneView, started: int) -> BatchPlan:
        """More requests than places: the highest ranks of all, prefills under way included in any case."""
        ranks = self._decode_ranks(lane)
        room = max(self.batch_sequences - started, 0)
        plan = self._mixed(lane, min(len(ranks), room), self._before(ranks, room))
        places = max(self.batch_sequences - len(plan.prefills), 0 if plan.prefills else 1)
        skip = frozenset(request_id for _, request_id in ranks[places:])
        return plan._replace(skip=skip, holds=False)

    def _mixed(self, lane: LaneView, decodes: int, queue: Iterator[SequenceView]) -> BatchPlan:
        budget = lane.max_batch_tokens if self.token_budget is None else min(lane.max_batch_tokens, self.token_budget)
        spare = len(lane.paused)  # a decode that resumes may need a block
        return mixed(lane, budget - decodes, budget, preempt_stuck=True, queue=queue, spare_blocks=spare)

    def _before(self, ranks: list[tuple[float, int]], room: int) -> Iterator[SequenceView]:
        """The waiting requests that are among the ``room`` highest ranks."""
        for place, sequence in enumerate(self._line.walk()):
            rank = (self._line.key_of(sequence.request_id), sequence.request_id)
            if place + bisect_left(ranks, rank) >= room:
                return
            yield sequence

    def _decode_ranks(self, lane: LaneView) -> list[tuple[float, int]]:
        """(rank, request id) of all decodes, highest first."""
        before, stays, ranks = self._stays, {}, []
        for sequence in (*lane.decodes, *lane.paused):
            request_id, generated = sequence.request_id, sequence.generated_tokens
            stay = before.get(request_id)
            if stay is None or generated >= stay.until:
                stay = self._stay(lane, sequence)
            stays[request_id] = stay
            ranks.append((stay.base_s + stay.step_s * generated, request_id))
        self._stays = stays
        ranks.sort()
        return ranks

    def rank_s(self, lane: LaneView, sequence: SequenceView) -> float:
        """When a request of the highest level that was never served would have come, to rank the same."""
        stay = self._stay(lane, sequence)
        return stay.base_s + stay.step_s * sequence.generated_tokens

    def level(self, lane: LaneView, sequence: SequenceView) -> int:
        """The level of this request, 0 is the highest."""
        return self._level(lane, sequence)[0]

    def _stay(self, lane: LaneView, sequence: SequenceView) -> _Stay:
        level, until = self._level(lane, sequence)
        step_s = lane.estimate.decode_s(1, sequence.request.prompt_tokens)
        served_s = (
            lane.estimate.prefill_s(sequence.request.prompt_tokens) - step_s if sequence.generated_tokens else 0.0
        )
        return _Stay(sequence.request.arrival_s + served_s + level * self.starvation_s, step_s, until)

    def _level(self, lane: LaneView, sequence: SequenceView) -> tuple[int, float]:
        """The level, and the generated tokens at which the next one begins."""
        prompt, generated = sequence.request.prompt_tokens, sequence.generated_tokens
        first_s, step_s = lane.estimate.prefill_s(prompt), lane.estimate.decode_s(1, prompt)
        quantum_s = self.base_quantum_s or lane.estimate.decode_s(1, 1)
        level, allowed_s = 0, 0.0
        while level < self.levels - 1:
            if allowed_s or quantum_s >= first_s:
                allowed_s += quantum_s
                until = 1 + (allowed_s - first_s) / step_s
                if generated < until:
                    return level, until
            level += 1
            quantum_s *= self.growth
        return level, inf
