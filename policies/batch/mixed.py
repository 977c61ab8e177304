"""An iteration of all decodes and some prompt tokens: what unified_budget, chunked_prefill and the policies with an
order of their own are made of.

A prompt is admitted only if the blocks of all of it can be had now, those that prefills under way still need set
aside: so prefills never block each other. Blocks for the decodes of this iteration come before either.
"""

from __future__ import annotations

from collections.abc import Iterable

from policies.api import DECODE_ALL, BatchPlan, Chunk, LaneView, SequenceView


def mixed(
    lane: LaneView,
    tokens: int,
    longest_chunk: int,
    *,
    preempt_stuck: bool = False,
    queue: Iterable[SequenceView] | None = None,
    spare_blocks: int = 0,
) -> BatchPlan:
    """All decodes, and up to ``tokens`` prompt tokens: prefills under way first, then new ones in the order of
    ``queue`` (first come first), up to the first that does not fit.

    No chunk is longer than ``longest_chunk``. If decodes have taken the blocks that a prefill under way needs, it
    waits, or (``preempt_stuck``) the latest prefill is preempted. Prefills leave ``spare_blocks`` free. The plan holds
    if the order of ``queue`` does.
    """
    blocks = lane.free_blocks - lane.decode_blocks - spare_blocks
    if tokens <= 0 or blocks < 0:
        return DECODE_ALL
    chunks: list[Chunk] = []
    reserved = 0
    for sequence in lane.prefilling:
        left = lane.uncomputed_tokens(sequence)
        size = min(left, tokens, longest_chunk)
        need = lane.blocks_needed(sequence, size)
        if need > blocks:
            return _stuck(lane, chunks, preempt_stuck)
        chunks.append(Chunk(sequence.request_id, size))
        tokens -= size
        if not tokens:
            return BatchPlan(tuple(chunks), holds=len(chunks) == 1)
        blocks -= need
        if size < left:
            reserved += lane.blocks_needed(sequence, left) - need
    under_way = len(chunks)
    waiting = lane.waiting if queue is None else queue
    tokens = _admit(lane, waiting, chunks, tokens, longest_chunk, blocks - reserved)
    if not chunks:
        return DECODE_ALL
    # With tokens to spare, a prompt that waits may come to fit when its prefix gets cached: no promise then.
    settled = not tokens or len(chunks) - under_way == len(lane.waiting)
    return BatchPlan(tuple(chunks), holds=settled and len(chunks) == 1)


def ordered(lane: LaneView, token_budget: int | None, queue: Iterable[SequenceView]) -> BatchPlan:
    """As unified_budget, new prompts in the order of ``queue``."""
    budget = lane.max_batch_tokens if token_budget is None else min(lane.max_batch_tokens, token_budget)
    return mixed(lane, budget - len(lane.decodes), budget, preempt_stuck=True, queue=queue)


def without_promise(lane: LaneView, plan: BatchPlan) -> BatchPlan:
    """The same plan where another order of the queue would change it: some wait for blocks, and places are free."""
    if plan is DECODE_ALL and lane.waiting and lane.running_sequences < lane.max_sequences:
        return BatchPlan()
    return plan


def _admit(
    lane: LaneView,
    waiting: Iterable[SequenceView],
    chunks: list[Chunk],
    tokens: int,
    longest_chunk: int,
    blocks: int,
) -> int:
    """Add chunks of waiting prompts while tokens, blocks and the admission limit last; returns the tokens left."""
    sequences = lane.max_sequences - lane.running_sequences
    if sequences <= 0:
        return tokens
    for sequence in waiting:
        left = lane.uncomputed_tokens(sequence)
        blocks -= lane.blocks_needed(sequence, left)
        if blocks < 0:
            break
        size = min(left, tokens, longest_chunk)
        chunks.append(Chunk(sequence.request_id, size))
        tokens -= size
        sequences -= 1
        if not tokens or not sequences:
            break
    return tokens


def _stuck(lane: LaneView, chunks: list[Chunk], preempt: bool) -> BatchPlan:
    """The next prefill under way finds no blocks: nobody is admitted."""
    if not preempt:
        return BatchPlan(tuple(chunks)) if chunks else DECODE_ALL
    *_, latest = lane.prefilling
    return BatchPlan(tuple(chunks), preempt=(latest.request_id,), reason="no free KV block")
