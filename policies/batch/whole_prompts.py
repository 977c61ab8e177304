"""Whole prompts, and the decodes beside them: mixed batching without chunks.

Idea
    An iteration takes the first prompts that fit the token budget, whole (one that is longer than the budget comes
    alone), and all decodes if the budget has room for them too; else they pause. After a few iterations without
    decodes they go first, once. Tokens wait for whole prompts, so first tokens come early and later ones unevenly.
Reads
    The queue in order; prefills under way; the number of decodes; free blocks and limits of the lane.
Parameters
    token_budget: tokens of one iteration, decodes included.
    max_pauses: iterations in a row that leave the decodes out.
Source
    Splitwise, arXiv 2311.18677 ("mixed batching"), and splitwise-sim's SplitwiseInstance
    (MIT): 2048 tokens, at most 4 preemptions of a token task. It takes in as many decodes as the budget allows and
    counts pauses by request; here all of them take part or none.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range
from policies.batch.prefill_only import prefill_only


@dataclass
class WholePrompts:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "whole_prompts"
    token_budget: Annotated[int, Range(1, 131072, log=True)] = 2048
    max_pauses: Annotated[int, Range(0, 1000)] = 4
    rng: random.Random = field(init=False, repr=False)
    _pauses: int = field(init=False, repr=False, default=0)

    def plan(self, lane: LaneView) -> BatchPlan:
        decodes = len(lane.decodes) + len(lane.paused)
        if not lane.waiting and not lane.prefilling:
            self._pauses = 0
            return DECODE_ALL
        budget = min(self.token_budget, lane.max_batch_tokens)
        plan = prefill_only(lane, budget, lane.decode_blocks)
        if plan is None or not decodes:
            self._pauses = 0
            return plan or DECODE_ALL
        fits = not lane.prefilling and sum(chunk.tokens for chunk in plan.prefills) + decodes <= budget
        if fits:
            self._pauses = 0
            return plan._replace(decode=True, holds=False)
        self._pauses += 1
        if self._pauses > self.max_pauses:
            self._pauses = 0
            return BatchPlan()
        return plan._replace(holds=False)
