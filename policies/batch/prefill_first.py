"""Prompts before decodes: the scheduler of vLLM's first engine.

Idea
    If anything waits and fits, the next iteration computes whole prompts and nothing else; otherwise all decodes run.
    Good first-token times, stalls between the tokens of running requests. A prompt is admitted only while a small
    share of the KV blocks stays free afterwards, unless nothing else runs. vLLM refuses a prompt that is longer than
    its token budget; here it runs alone, in chunks of the engine's limit (``max_batch_tokens``) if it exceeds that too.
Reads
    The queue in order; prefills under way; free blocks, admission limit and token limit of the lane.
Parameters
    token_budget: prompt tokens of one iteration (vLLM: max_num_batched_tokens); none: the engine's limit.
    watermark: share of the KV blocks that admissions leave free.
Source
    vLLM up to 0.6 (v0 engine), vllm/core/scheduler.py and block_manager.py (watermark 0.01). Preemption (latest
    admitted first, by recompute) is the host's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range
from policies.batch.prefill_only import prefill_only


@dataclass
class PrefillFirst:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "prefill_first"
    token_budget: Annotated[int | None, Range(1, 131072, log=True)] = None
    watermark: Annotated[float, Range(0, 1)] = 0.01
    rng: random.Random = field(init=False, repr=False)

    def plan(self, lane: LaneView) -> BatchPlan:
        if not lane.waiting and not lane.prefilling:
            return DECODE_ALL
        return prefill_only(lane, self.token_budget, int(self.watermark * lane.total_blocks)) or DECODE_ALL
