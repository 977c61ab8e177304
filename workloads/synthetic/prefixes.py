"""Prompts that share their beginning: groups of requests with a common system prompt or document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workloads.errors import TraceError
from workloads.prefix import FlatIds, PrefixIds, blocks, unflatten
from workloads.synthetic import checks

_MAX_IDS = 200_000_000
_MAX_GROUPS = 10_000_000
_MAX_PREFIX_TOKENS = 1 << 24


@dataclass(frozen=True)
class SharedPrefix:
    """Each request begins with the ``tokens`` of one of ``groups`` prefixes, followed by a part of its own.

    Popularity: ``uniform``, or ``zipf`` (the group of rank r has weight r^-exponent). The blocks after the prefix get
    ids that occur once, so that they take cache space as they do in a real server. Only whole blocks are shared.
    """

    groups: int
    tokens: int
    popularity: Literal["uniform", "zipf"] = "uniform"
    exponent: float = 1.0
    block_tokens: int = 16

    def __post_init__(self) -> None:
        checks.whole(self, 1, _MAX_GROUPS, groups=self.groups)
        checks.whole(self, 1, _MAX_PREFIX_TOKENS, tokens=self.tokens, block_tokens=self.block_tokens)
        checks.one_of(self, ("uniform", "zipf"), popularity=self.popularity)
        checks.between(self, 0.0, 10.0, exponent=self.exponent)
        if self.tokens < self.block_tokens:
            allowed = f"at least one block of {self.block_tokens}, or nothing can be shared"
            raise TraceError(f"SharedPrefix: tokens={self.tokens} (allowed: {allowed})")

    def choose_groups(self, requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The group of each request."""
        exponent = self.exponent if self.popularity == "zipf" else 0.0
        weights = np.arange(1.0, self.groups + 1) ** -exponent
        share = np.cumsum(weights / weights.sum())
        return np.minimum(np.searchsorted(share, rng.random(requests), side="right"), self.groups - 1)

    def ids(self, group: NDArray[np.int64], prompt_tokens: NDArray[np.int32]) -> PrefixIds:
        """One chained id per block of each prompt (prefix included)."""
        shared = self.tokens // self.block_tokens
        counts = blocks(prompt_tokens, self.block_tokens)
        offsets = np.concatenate(([0], np.cumsum(counts)))
        if offsets[-1] > _MAX_IDS:
            allowed = f"at most {_MAX_IDS:,}; take fewer requests, shorter prompts or larger blocks"
            raise TraceError(f"SharedPrefix: {offsets[-1]:,} prefix blocks in all (allowed: {allowed})")
        position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        own = self.groups * shared + np.arange(offsets[-1])
        common = np.repeat(group * shared, counts) + position
        return unflatten(FlatIds(np.where(position < shared, common, own), offsets))
