"""From the shape of an iteration to one that an executor can run: made-up tokens over made-up contexts."""

from __future__ import annotations

import random
from itertools import count, cycle, islice

from experiments.profiling.shapes import Shape
from reference_impl.engine.api import ChunkRow, DecodeRow, Executor, ForwardBatch, SamplingParams

_FIRST_TOKEN = 5
_TOKENS = 997
"""Token ids go round below this, which every vocabulary has."""


class BatchMaker:
    """Block tables lie all over the pool, different for every sequence as long as the pool has blocks.

    What the KV blocks hold does not matter to their cost.
    """

    def __init__(self, kv_blocks: int, block_tokens: int) -> None:
        self._blocks = cycle(random.Random(0).sample(range(kv_blocks), kv_blocks))
        self._block_tokens = block_tokens
        self._ordinals = count(1)

    def make(self, shape: Shape) -> ForwardBatch:
        """The next iteration of an executor; requests are numbered from 0 in each."""
        requests = count()
        chunks = tuple(
            ChunkRow(next(requests), _tokens(new), before, self._table(before + new), yields=True)
            for new, before in shape.chunks
        )
        decodes = tuple(
            DecodeRow(next(requests), _FIRST_TOKEN, context - 1, self._table(context)) for context in shape.contexts
        )
        return ForwardBatch(next(self._ordinals), chunks, decodes)

    def _table(self, tokens: int) -> tuple[int, ...]:
        return tuple(islice(self._blocks, -(-tokens // self._block_tokens)))


def admit_all(executor: Executor, sequences: int) -> None:
    """Make the requests of every iteration known: greedy ones, as a replay sends them."""
    for request_id in range(sequences):
        executor.admit(request_id, SamplingParams(max_tokens=1 << 20, temperature=0.0, ignore_eos=True))


def _tokens(new: int) -> list[int]:
    return [_FIRST_TOKEN + place % _TOKENS for place in range(new)]
