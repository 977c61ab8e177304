"""Stall-free batching: every iteration decodes everybody and adds a bounded chunk of a prompt.

Idea
    Decodes always run. What they leave of ``chunk_tokens`` goes to the prefill under way, then to new prompts, first
    come first. The chunk bounds the time between two tokens; a smaller one trades first-token time for it.
    A prefill under way that finds no KV blocks waits until decodes have finished.
Reads
    The number of decodes; prefills under way; the queue in order; free blocks and limits of the lane.
Parameters
    chunk_tokens: tokens of one iteration, decodes included. Nobody is admitted while the decodes use them up.
Source
    Sarathi-Serve (arXiv 2403.02310, Algorithm 3), which uses 512 for a strict and 2048 for a relaxed target.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range
from policies.batch.mixed import mixed


@dataclass
class ChunkedPrefill:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "chunked_prefill"
    chunk_tokens: Annotated[int, Range(1, 131072, log=True)] = 512
    rng: random.Random = field(init=False, repr=False)

    def plan(self, lane: LaneView) -> BatchPlan:
        if not lane.waiting and not lane.prefilling:
            return DECODE_ALL
        tokens = min(self.chunk_tokens, lane.max_batch_tokens) - len(lane.decodes)
        return mixed(lane, tokens, tokens)
