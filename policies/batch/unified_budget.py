"""One token budget for decodes and prompts alike: the scheduler of vLLM's second engine.

Idea
    Every iteration fills a token budget: one token for each decode, then prefills under way, then waiting prompts,
    first come first; the prompt that does not fit is cut. Nobody is admitted while the decodes use up the budget.
    A prompt is admitted only if all of it finds KV blocks. A prefill under way whose blocks the decodes have taken
    is preempted, latest first, as any running request is in vLLM.
Reads
    The number of decodes; prefills under way; the queue in order; free blocks and limits of the lane.
Parameters
    token_budget: tokens of one iteration (vLLM: max_num_batched_tokens); none: the engine's limit.
    long_prefill_token_threshold: longest chunk of one prompt; none: the whole budget (vLLM: 0).
Source
    vLLM v1, vllm/v1/core/sched/scheduler.py; admission of whole prompts as in its scheduler_reserve_full_isl, on by
    default in 0.19. Preemption for decodes (latest admitted first, by recompute) is the host's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range
from policies.batch.mixed import mixed


@dataclass
class UnifiedBudget:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "unified_budget"
    token_budget: Annotated[int | None, Range(1, 131072, log=True)] = None
    long_prefill_token_threshold: Annotated[int | None, Range(1, 131072, log=True)] = None
    rng: random.Random = field(init=False, repr=False)

    def plan(self, lane: LaneView) -> BatchPlan:
        if not lane.waiting and not lane.prefilling:
            return DECODE_ALL
        budget = lane.max_batch_tokens
        if self.token_budget is not None:
            budget = min(budget, self.token_budget)
        longest = self.long_prefill_token_threshold or budget
        return mixed(lane, budget - len(lane.decodes), longest, preempt_stuck=True)
