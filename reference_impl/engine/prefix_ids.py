"""Chained ids of a prompt's token blocks: what prefix caches and prefix-aware dispatch compare."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

_LARGEST_ID = 2**63 - 1


def prefix_ids(prompt: Sequence[int], block_tokens: int) -> tuple[int, ...]:
    """One 63-bit id per full block; equal ids mean equal prompts up to the end of that block, in every process.

    A last block that is not full has no id: its KV block will be written to.
    """
    if block_tokens < 1:
        raise ValueError(f"block_tokens {block_tokens} is not allowed (allowed: 1 or more)")
    data = memoryview(array("q", prompt)).cast("B")
    step = 8 * block_tokens
    digest, ids = b"", []
    for end in range(step, len(data) + 1, step):
        digest = blake2b(digest + bytes(data[end - step : end]), digest_size=8).digest()
        ids.append(int.from_bytes(digest, "little") & _LARGEST_ID)
    return tuple(ids)
