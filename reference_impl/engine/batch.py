"""One iteration's rows in the order in which they are computed: chunks, then decodes by ascending context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

from reference_impl.engine.api import ChunkRow, DecodeRow, ForwardBatch


class ChunkSpan(NamedTuple):
    """A chunk's place among the rows."""

    first: int
    rows: int
    start: int
    """Position of its first token; that many tokens of its sequence are in the pool already."""
    blocks: Sequence[int]


class Arrangement(NamedTuple):
    """A batch as parallel lists with one entry per row, a row being one input token."""

    tokens: list[int]
    positions: list[int]
    slots: list[int]
    """Where a row's KV goes: block * block_tokens + offset."""
    chunks: list[ChunkSpan]
    decodes: list[DecodeRow]
    """By ascending position, so that neighbours have contexts of similar length; the last rows, in this order."""
    yields: list[int]
    """The request of each token of the outcome: chunks first, then decodes, in the batch's order."""
    keep: list[int]
    """The row whose logits give it."""

    @property
    def first_decode(self) -> int:
        """The row of the first decode."""
        return len(self.tokens) - len(self.decodes)


def arrange(batch: ForwardBatch, block_tokens: int, last_token: Callable[[int], int]) -> Arrangement:
    """``last_token`` gives the input of a decode that was planned before its token was known."""
    arranged = Arrangement([], [], [], [], sorted(batch.decodes, key=attrgetter("position")), [], [])
    for chunk in batch.chunks:
        _add_chunk(arranged, chunk, block_tokens)
    first = len(arranged.tokens)
    row_of: dict[int, int] = {}
    for row, (request_id, token, position, blocks) in enumerate(arranged.decodes, first):
        row_of[request_id] = row
        arranged.tokens.append(last_token(request_id) if token is None else token)
        arranged.positions.append(position)
        arranged.slots.append(blocks[position // block_tokens] * block_tokens + position % block_tokens)
    for decode in batch.decodes:
        arranged.yields.append(decode.request_id)
        arranged.keep.append(row_of[decode.request_id])
    return arranged


def _add_chunk(arranged: Arrangement, chunk: ChunkRow, size: int) -> None:
    request_id, tokens, start, blocks, yields = chunk
    end = start + len(tokens)
    arranged.chunks.append(ChunkSpan(len(arranged.tokens), len(tokens), start, blocks))
    arranged.tokens.extend(tokens)
    arranged.positions.extend(range(start, end))
    for ordinal in range(start // size, -(-end // size)):
        low, high = max(start - ordinal * size, 0), min(end - ordinal * size, size)
        base = blocks[ordinal] * size
        arranged.slots.extend(range(base + low, base + high))
    if yields:
        arranged.yields.append(request_id)
        arranged.keep.append(len(arranged.tokens) - 1)
