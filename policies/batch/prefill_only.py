"""An iteration of prompts alone, decodes paused: what prefill_first and decode_first are made of."""

from __future__ import annotations

from policies.api import BatchPlan, Chunk, LaneView


def prefill_only(lane: LaneView, token_budget: int | None, spare_blocks: int) -> BatchPlan | None:
    """Whole prompts, first come first; None where none can run now.

    Up to ``token_budget`` tokens (None: the engine's limit), leaving ``spare_blocks`` KV blocks free. A prompt over
    the budget runs alone, in chunks of the engine's limit if it is over that too.
    """
    for sequence in lane.prefilling:  # nothing but a prompt over the engine's limit is ever partly computed
        tokens = min(lane.uncomputed_tokens(sequence), lane.max_batch_tokens)
        if lane.blocks_needed(sequence, tokens) > lane.free_blocks:
            return None
        return BatchPlan((Chunk(sequence.request_id, tokens),), decode=False, holds=True)
    chunks = _whole_prompts(lane, min(token_budget or lane.max_batch_tokens, lane.max_batch_tokens), spare_blocks)
    return BatchPlan(tuple(chunks), decode=False, holds=len(chunks) == 1) if chunks else None


def _whole_prompts(lane: LaneView, tokens: int, spare_blocks: int) -> list[Chunk]:
    running = lane.running_sequences
    sequences = min(lane.max_sequences, lane.max_batch_tokens) - running
    blocks = lane.free_blocks
    if running:  # whoever is alone may have everything: a prompt that needs the whole pool must not wait for ever
        blocks -= spare_blocks
    chunks: list[Chunk] = []
    if sequences <= 0:
        return chunks
    for sequence in lane.waiting:
        left = lane.uncomputed_tokens(sequence)
        blocks -= lane.blocks_needed(sequence, left)
        if blocks < 0:
            break
        if left > tokens:
            if not chunks:
                chunks.append(Chunk(sequence.request_id, min(left, lane.max_batch_tokens)))
            break
        chunks.append(Chunk(sequence.request_id, left))
        tokens -= left
        if len(chunks) == sequences:
            break
    return chunks
