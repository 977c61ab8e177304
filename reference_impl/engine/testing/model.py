"""A model without weights: a token's KV is a number, and the next token a hash of all the KV before it.

So a token is right only if every block of its context holds what it should, in every layer: one block too early reused,
one chunk at a wrong position, one layer not handed over, and all that follows is different.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reference_impl.engine.kv_cache import KvLayout

FAKE_VOCAB_TOKENS = 1000
_LAYERS = 2
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MIX = 0xD1342543DE82EF95
_WORD = (1 << 64) - 1
_WEIGHTS = np.array([[[1], [3]], [[5], [7]]], np.uint64)
"""Of each layer's keys and values, so that none can stand in for another."""


def fake_layout(block_tokens: int) -> KvLayout:
    """Eight bytes per token, layer, and keys or values."""
    return KvLayout(_LAYERS, 1, 2, block_tokens, "float32")


def kv_of(tokens: Sequence[int], start: int) -> NDArray[np.uint64]:
    """The KV of ``tokens`` from position ``start`` on: [layers, 2, tokens]."""
    values = np.asarray(tokens, np.uint64) + np.uint64(1)
    values *= np.arange(start + 1, start + 1 + len(tokens), dtype=np.uint64)
    values *= _SPREAD
    values ^= values >> np.uint64(29)
    weighted: NDArray[np.uint64] = values * _WEIGHTS
    return weighted


def next_token(kv: NDArray[np.uint64]) -> int:
    """The token that follows a context with this KV: [layers, 2, tokens]."""
    mixed = int(kv.sum(dtype=np.uint64)) * _MIX & _WORD
    return (mixed >> 33) % FAKE_VOCAB_TOKENS


def fake_tokens(prompt: Sequence[int], count: int) -> tuple[int, ...]:
    """The first ``count`` tokens that follow ``prompt``, as every chain of fake instances must yield them."""
    tokens = list(prompt)
    total = int(kv_of(tokens, 0).sum(dtype=np.uint64))
    for _ in range(count):
        tokens.append(((total * _MIX & _WORD) >> 33) % FAKE_VOCAB_TOKENS)
        total += int(kv_of(tokens[-1:], len(tokens) - 1).sum(dtype=np.uint64))
    return tuple(tokens[len(prompt) :])
