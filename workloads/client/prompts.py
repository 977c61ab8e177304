"""Prompts of token ids in which the trace's prefix structure is real.

The tokens of a block are a function of its chained prefix id, of the seed and of their place in the block, so that
equal ids mean equal tokens, in every request and every run with this seed. Tokens that no id covers are the request's
own. Both come from one counter-based hash: nothing is stored, and no prompt depends on the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workloads.client.errors import ReplayError
from workloads.trace import Trace

MIN_VOCABULARY = 16
Hashes = NDArray[np.uint64]
_BLOCKS, _OWN, _WARMUP = 1, 2, 3
"""Streams of the hash: shared blocks, a request's own tokens, a warm-up request's."""


@dataclass(frozen=True)
class Vocabulary:
    """Token ids that a prompt may hold: from ``first`` up to, not including, ``end``, less ``special``."""

    first: int
    end: int
    special: frozenset[int] = frozenset()

    def ids(self) -> NDArray[np.int64]:
        """All of them, ascending. Raises ReplayError where they are too few."""
        allowed = np.setdiff1d(np.arange(self.first, self.end), np.array(sorted(self.special), np.int64))
        if len(allowed) < MIN_VOCABULARY:
            raise ReplayError(
                f"a vocabulary of {len(allowed)} token ids ({self.first} to {self.end}, less {len(self.special)} "
                f"special ones) is not allowed; allowed: {MIN_VOCABULARY} or more"
            )
        return allowed


class PromptMaker:
    """The prompts of one trace, one by one."""

    def __init__(self, trace: Trace, choices: int, seed: int) -> None:
        """``choices``: how many different tokens there are; prompts name them 0 .. choices - 1."""
        self._trace = trace
        self._choices = np.uint64(choices)
        self._seed = seed

    def prompt(self, row: int, tokens: int | None = None) -> NDArray[np.int64]:
        """The prompt of the request in this row; ``tokens``: another length than the trace's."""
        length = int(self._trace.prompt_tokens[row]) if tokens is None else tokens
        shared = self._shared(row, length)
        own = _hash(self._stream(_OWN), np.array([row], np.uint64), length - len(shared))
        return self._tokens(np.concatenate((shared, own)))

    def warmup(self, number: int, tokens: int) -> NDArray[np.int64]:
        """A prompt that shares nothing with any request's."""
        return self._tokens(_hash(self._stream(_WARMUP), np.array([number], np.uint64), tokens))

    def _shared(self, row: int, length: int) -> Hashes:
        """The part that prefix ids cover; the last block may be cut."""
        ids, block = self._trace.prefix_ids, self._trace.prefix_block_tokens
        if ids is None or block is None:
            return np.empty(0, np.uint64)
        return _hash(self._stream(_BLOCKS), np.array(ids[row], np.uint64), block)[:length]

    def _stream(self, stream: int) -> np.uint64:
        return np.uint64(int(_mixed(np.array([self._seed], np.uint64))[0]) ^ stream)

    def _tokens(self, hashes: Hashes) -> NDArray[np.int64]:
        tokens: NDArray[np.int64] = (hashes % self._choices).astype(np.int64)
        return tokens


def as_ids(tokens: NDArray[np.int64], vocabulary: NDArray[np.int64]) -> list[int]:
    """The token ids of a prompt that names its tokens by their place in the vocabulary."""
    ids: list[int] = vocabulary[tokens].tolist()
    return ids


def _hash(stream: np.uint64, keys: Hashes, each: int) -> Hashes:
    """``each`` hashes per key, in order."""
    mixed = _mixed(_mixed(keys) ^ stream)
    places = np.arange(each, dtype=np.uint64) * _STEP
    return _mixed(np.add.outer(mixed, places).ravel())


_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64's finaliser: a bijection of 64-bit numbers whose every bit depends on every bit. Source: Steele, Lea
    and Flood, Fast splittable pseudorandom number generators, 2014."""
    values = (values ^ (values >> _SHIFTS[0])) * _FACTORS[0]
    values = (values ^ (values >> _SHIFTS[1])) * _FACTORS[1]
    mixed: Hashes = values ^ (values >> _SHIFTS[2])
    return mixed
