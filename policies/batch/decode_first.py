"""Decodes before prompts: new prompts only when the running batch has shrunk.

Idea
    While at least ``refill_below`` sequences decode, only they run. Below that, an iteration of whole prompts refills
    the batch. With the default of 1 a batch is decoded to its end before the next one starts (request-level
    batching); a larger value is a low-water mark. No stalls between tokens, long waits for the first one.
Reads
    How many sequences decode; the queue in order; prefills under way; free blocks and limits of the lane.
Parameters
    refill_below: prompts are computed only while fewer than this many sequences decode.
    token_budget: prompt tokens of one refill; none: the engine's limit. A longer prompt runs alone.
Source
    Request-level batching of FasterTransformer, called "decode-prioritizing" in Sarathi-Serve (arXiv 2403.02310,
    section 2.4); the low-water mark is ours.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range
from policies.batch.prefill_only import prefill_only


@dataclass
class DecodeFirst:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "decode_first"
    refill_below: Annotated[int, Range(1, 1024, log=True)] = 1
    token_budget: Annotated[int | None, Range(1, 131072, log=True)] = None
    rng: random.Random = field(init=False, repr=False)

    def plan(self, lane: LaneView) -> BatchPlan:
        if len(lane.decodes) >= self.refill_below or (not lane.waiting and not lane.prefilling):
            return DECODE_ALL
        return prefill_only(lane, self.token_budget, spare_blocks=0) or DECODE_ALL
