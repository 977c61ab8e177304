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
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range, SequenceView
from policies.batch.mixed import mixed
from policies.batch.ranked_decodes import RankedDecodes, Stay
from policies.batch.waiting_line import WaitingLine


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
    _decodes: RankedDecodes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._line = WaitingLine(self.rank_s)
        self._decodes = RankedDecodes(self._stay)

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
        self._decodes.read(lane)
        room = max(self.batch_sequences - started, 0)
        plan = self._mixed(lane, min(len(self._decodes), room), self._before(room))
        places = max(self.batch_sequences - len(plan.prefills), 0 if plan.prefills else 1)
        return plan._replace(skip=self._decodes.beyond(places), holds=False)

    def _mixed(self, lane: LaneView, decodes: int, queue: Iterator[SequenceView]) -> BatchPlan:
        budget = lane.max_batch_tokens if self.token_budget is None else min(lane.max_batch_tokens, self.token_budget)
        spare = len(lane.paused)  # a decode that resumes may need a block
        return mixed(lane, budget - decodes, budget, preempt_stuck=True, queue=queue, spare_blocks=spare)

    def _before(self, room: int) -> Iterator[SequenceView]:
        """The waiting requests that are among the ``room`` highest ranks."""
        for place, sequence in enumerate(self._line.walk()):
            rank = (self._line.key_of(sequence.request_id), sequence.request_id)
            if place + self._decodes.before(rank) >= room:
                return
            yield sequence

    def rank_s(self, lane: LaneView, sequence: SequenceView) -> float:
        """When a request of the highest level that was never served would have come, to rank the same."""
        stay = self._stay(lane, sequence)
        return stay.base_s + stay.step_s * sequence.generated_tokens

    def level(self, lane: LaneView, sequence: SequenceView) -> int:
        """The level of this request, 0 is the highest."""
        return self._stay(lane, sequence).level

    def _stay(self, lane: LaneView, sequence: SequenceView, before: Stay | None = None) -> Stay:
        """The level whose quantum is not used up, and the generated tokens at which the next one begins; ``before``:
        a level that it has used up."""
        request, generated = sequence.request, sequence.generated_tokens
        if before is None:
            level, allowed_s = 0, 0.0
            first_s = lane.estimate.prefill_s(request.prompt_tokens)
            step_s = lane.estimate.decode_s(1, request.prompt_tokens)
            quantum_s = self.base_quantum_s or lane.estimate.decode_s(1, 1)
        else:
            _, step_s, _, level, allowed_s, quantum_s, first_s = before
            level, quantum_s = level + 1, quantum_s * self.growth
        until = inf
        while level < self.levels - 1:
            if allowed_s or quantum_s >= first_s:
                allowed_s += quantum_s
                until = 1 + (allowed_s - first_s) / step_s
                if generated < until:
                    break
            level, quantum_s, until = level + 1, quantum_s * self.growth, inf
        served_s = first_s - step_s if generated else 0.0
        base_s = request.arrival_s + served_s + level * self.starvation_s
        return Stay(base_s, step_s, until, level, allowed_s, quantum_s, first_s)
