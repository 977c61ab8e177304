"""Conversion of prefix ids to another block size, where that is exact.

*Refining* (512 to 16): each id becomes as many ids as its block has sub-blocks. The tokens that two requests are
known to share stay the same; sharing that ends inside a recorded block was never recorded and stays unseen.
*Coarsening* (16 to 64): because ids are chained, the last id of a group stands for the whole prefix up to there. What
two requests share beyond their last common coarse block is lost, as it is on a system with such blocks. A last group
that is not full keeps an id only if the ids cover the whole prompt.
Any other ratio would need the tokens of the prompts, so it is refused.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workloads.errors import TraceError
from workloads.prefix import FlatIds, PrefixIds, blocks, check_block, flatten, unflatten


def convert(name: str, prefix_ids: PrefixIds, prompt_tokens: NDArray[np.int32], old: int, new: int) -> PrefixIds:
    """``prefix_ids`` of blocks of ``old`` tokens as ids of blocks of ``new`` tokens. Raises TraceError if not exact."""
    check_block(name, new)
    if old % new == 0:
        return _refine(name, prefix_ids, prompt_tokens, old, new)
    if new % old == 0:
        return _coarsen(name, prefix_ids, prompt_tokens, old, new)
    allowed = f"a divisor or a multiple of {old}: other sizes would need the prompts' tokens"
    raise TraceError(f"{name}, prefix_block_tokens: {old} to {new} is not exact (allowed: {allowed})")


def _refine(name: str, prefix_ids: PrefixIds, prompt_tokens: NDArray[np.int32], old: int, new: int) -> PrefixIds:
    """Ids are numbered anew, from 0 on: ``factor`` consecutive numbers per recorded id."""
    flat = flatten(name, prefix_ids)
    factor = old // new
    counts = np.diff(flat.offsets)
    _, dense = np.unique(flat.ids, return_inverse=True)
    refined = np.add.outer(dense * factor, np.arange(factor)).ravel()
    kept = np.minimum(counts * factor, blocks(prompt_tokens, new))
    position = np.arange(len(refined)) - np.repeat(flat.offsets[:-1] * factor, counts * factor)
    return _cut(refined[position < np.repeat(kept, counts * factor)], kept)


def _coarsen(name: str, prefix_ids: PrefixIds, prompt_tokens: NDArray[np.int32], old: int, new: int) -> PrefixIds:
    flat = flatten(name, prefix_ids)
    factor = new // old
    counts = np.diff(flat.offsets)
    position = np.arange(len(flat.ids)) - np.repeat(flat.offsets[:-1], counts)
    ends_group = position % factor == factor - 1
    complete = counts == blocks(prompt_tokens, old)
    ends_prompt = (position == np.repeat(counts, counts) - 1) & np.repeat(complete, counts)
    last = ends_group | ends_prompt
    kept = np.bincount(flat.request_of_each()[last], minlength=len(counts))
    return _cut(flat.ids[last], kept)


def _cut(ids: NDArray[np.int64], counts: NDArray[np.int64]) -> PrefixIds:
    return unflatten(FlatIds(ids, np.concatenate(([0], np.cumsum(counts)))))
