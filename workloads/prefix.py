"""Chained prefix ids: one id per block of prompt tokens; equal ids mean equal prompts up to the end of that block.

So an id determines the ids before it: wherever it occurs, it follows the same one. A request may have fewer ids than
blocks (only full blocks were hashed, or only a shared part is known): tokens without an id are never shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workloads.errors import TraceError, refusal

PrefixIds = tuple[tuple[int, ...], ...]
IDS_ALLOWED = "integers 0..2^63-1"


class FlatIds(NamedTuple):
    """The ids of all requests in one array; those of request i are ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def request_of_each(self) -> NDArray[np.int64]:
        """Row number of the request that each id belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def flatten(name: str, prefix_ids: Sequence[Sequence[int]]) -> FlatIds:
    """All ids in one array. Raises TraceError where an id is not a whole number 0..2^63-1."""
    offsets = np.zeros(len(prefix_ids) + 1, dtype=np.int64)
    try:
        np.cumsum([len(ids) for ids in prefix_ids], out=offsets[1:])
        flat = np.array(list(chain.from_iterable(prefix_ids)))
    except (TypeError, ValueError, OverflowError) as error:
        raise TraceError(f"{name}, column prefix_ids: not lists of numbers (allowed: {IDS_ALLOWED})") from error
    if flat.size == 0:
        return FlatIds(np.empty(0, dtype=np.int64), offsets)
    if flat.ndim != 1 or flat.dtype.kind != "i":
        raise TraceError(f"{name}, column prefix_ids: {flat.dtype} is not allowed (allowed: {IDS_ALLOWED})")
    if flat.min() < 0:
        at = int(np.argmax(flat < 0))
        row = int(np.searchsorted(offsets, at, side="right")) - 1
        raise TraceError(refusal(f"{name}, row {row}", "prefix_ids", int(flat[at]), IDS_ALLOWED))
    return FlatIds(flat, offsets)


def unflatten(flat: FlatIds) -> PrefixIds:
    """One tuple of Python integers per request."""
    ids = flat.ids.tolist()
    ends = flat.offsets.tolist()
    return tuple(tuple(ids[start:end]) for start, end in pairwise(ends))


def unchained(flat: FlatIds) -> NDArray[np.bool_]:
    """Per request: whether one of its ids follows another id here than where it first occurs in the trace."""
    before = np.empty_like(flat.ids)
    before[1:] = flat.ids[:-1]
    starts = flat.offsets[:-1]
    before[starts[np.diff(flat.offsets) > 0]] = -1
    order = np.argsort(flat.ids, kind="stable")
    ids, before = flat.ids[order], before[order]
    first = np.concatenate(([True], ids[1:] != ids[:-1])) if ids.size else np.empty(0, dtype=bool)
    firsts = before[np.flatnonzero(first)][np.cumsum(first) - 1] if ids.size else before
    wrong = np.zeros(len(starts), dtype=np.bool_)
    wrong[flat.request_of_each()[order[before != firsts]]] = True
    return wrong


def blocks(tokens: NDArray[np.int32], block_tokens: int) -> NDArray[np.int64]:
    """Blocks that ``tokens`` prompt tokens fill, the last one perhaps partly."""
    return -(-tokens.astype(np.int64) // block_tokens)


def check(name: str, prefix_ids: Sequence[Sequence[int]], prompt_tokens: NDArray[np.int32], block: int) -> PrefixIds:
    """``prefix_ids`` as tuples: chained, and never more ids than the prompt has blocks."""
    if len(prefix_ids) != len(prompt_tokens):
        found = f"{len(prefix_ids)} values (allowed: one per arrival, {len(prompt_tokens)})"
        raise TraceError(f"{name}, column prefix_ids: {found}")
    flat = flatten(name, prefix_ids)
    counts, allowed = np.diff(flat.offsets), blocks(prompt_tokens, block)
    if (counts > allowed).any():
        row = int(np.argmax(counts > allowed))
        limit = f"at most {allowed[row]}, one per {block} of {prompt_tokens[row]} prompt tokens"
        raise TraceError(refusal(f"{name}, row {row}", "prefix_ids", f"{counts[row]} ids", limit))
    wrong = unchained(flat)
    if wrong.any():
        row = int(np.argmax(wrong))
        allowed_text = "chained ids: each id always follows the same one"
        raise TraceError(refusal(f"{name}, row {row}", "prefix_ids", tuple(prefix_ids[row]), allowed_text))
    return unflatten(flat)


def check_block(name: str, block_tokens: object) -> int:
    """A block size that makes sense, as an int."""
    if not isinstance(block_tokens, int) or isinstance(block_tokens, bool) or block_tokens < 1:
        raise TraceError(f"{name}, prefix_block_tokens: {block_tokens!r} is not allowed (allowed: integers from 1 on)")
    return block_tokens


def clip(prefix_ids: PrefixIds, prompt_tokens: NDArray[np.int32], block_tokens: int) -> PrefixIds:
    """The ids of prompts cut to ``prompt_tokens``: a block that is cut keeps its id."""
    kept = blocks(prompt_tokens, block_tokens).tolist()
    return tuple(ids[:count] for ids, count in zip(prefix_ids, kept, strict=True))
