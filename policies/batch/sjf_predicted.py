"""The request with the least predicted work goes first, and waiting counts.

Idea
    Shortest job first by the predicted length of the output, less what was generated before a preemption. Waiting
    lowers a request's work by ``aging_tokens_per_s`` for each second, so nobody waits for ever: a request is overtaken
    only by those that come within (difference in work) / aging after it. All waiting requests age alike, so their
    order never changes. Who runs is not preempted for a shorter one. Batches are those of unified_budget. Plans hold.
    Without a predictor all outputs count as ``unknown_tokens`` and the order is first come, first served.
Reads
    Arrival, prompt tokens and predicted output tokens of who waits (``--predictor``); blocks and limits of the lane.
Parameters
    aging_tokens_per_s: by how much a second of waiting lowers a request's work; 0: pure shortest job first.
    prompt_weight: how much of the output one prompt token counts as.
    unknown_tokens: output length of a request without a prediction.
    token_budget: tokens of one iteration; none: the engine's limit.
Source
    Shortest predicted job first as in SSJF and LTR; TRAIL (ICLR'25) orders by the predicted remaining length and
    preempts within limits, which is left out here. They print no rate of aging: the default is OURS.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range, SequenceView
from policies.batch.mixed import ordered
from policies.batch.waiting_line import WaitingLine


@dataclass
class SjfPredicted:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "sjf_predicted"
    aging_tokens_per_s: Annotated[float, Range(0, 10000)] = 20.0
    prompt_weight: Annotated[float, Range(0, 10)] = 0.0
    unknown_tokens: Annotated[int, Range(1, 131072, log=True)] = 256
    token_budget: Annotated[int | None, Range(1, 131072, log=True)] = None
    rng: random.Random = field(init=False, repr=False)
    _line: WaitingLine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._line = WaitingLine(self.aged_work)

    def plan(self, lane: LaneView) -> BatchPlan:
        if not lane.waiting and not lane.prefilling:
            return DECODE_ALL
        self._line.follow(lane)
        return ordered(lane, self.token_budget, self._line.walk())

    def aged_work(self, lane: LaneView, sequence: SequenceView) -> float:
        """Tokens of work as of time 0: those left, plus the aging that later requests have missed."""
        request = sequence.request
        predicted = request.predicted_output_tokens or self.unknown_tokens
        left = max(predicted - sequence.generated_tokens, 1) + self.prompt_weight * request.prompt_tokens
        return left + self.aging_tokens_per_s * request.arrival_s
