"""Means and percentiles, plain and weighted; linear interpolation between ranks, numpy's default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reference_impl.metrics.log import Floats, Ints


class Weighted(NamedTuple):
    """A multiset: ``values[i]`` occurs ``weights[i]`` times. Ascending values, positive weights."""

    values: Floats
    weights: Ints

    @classmethod
    def of(cls, values: Floats, weights: Ints | None = None) -> Weighted:
        """Sort; drop values that occur zero times."""
        counts = np.ones(len(values), np.int64) if weights is None else weights
        kept = np.flatnonzero(counts > 0)
        order = kept[np.argsort(values[kept], kind="stable")]
        return cls(values[order], counts[order])

    @property
    def size(self) -> int:
        """Members of the multiset."""
        return int(self.weights.sum())

    def mean(self) -> float:
        """Arithmetic mean; NaN of nothing."""
        return float(np.average(self.values, weights=self.weights)) if len(self.values) else float("nan")

    def std(self) -> float:
        """Standard deviation of the population (not of a sample); NaN of nothing."""
        if not len(self.values):
            return float("nan")
        return float(np.sqrt(np.average((self.values - self.mean()) ** 2, weights=self.weights)))

    def percentiles(self, percents: Sequence[float]) -> Floats:
        """What ``numpy.percentile(expanded, percents)`` gives, without expanding; NaN of nothing."""
        if not len(self.values):
            return np.full(len(percents), np.nan)
        last_rank = np.cumsum(self.weights)  # ranks 0 .. last_rank[i] - 1 are at most values[i]
        rank = np.asarray(percents, np.float64) / 100 * (last_rank[-1] - 1)
        below = np.floor(rank)
        above = np.minimum(below + 1, last_rank[-1] - 1)
        low = self.values[np.searchsorted(last_rank, below, side="right")]
        high = self.values[np.searchsorted(last_rank, above, side="right")]
        found: Floats = low + (high - low) * (rank - below)
        return found

    def expand(self) -> Floats:
        """Every member, ascending. As large as :attr:`size`."""
        return np.repeat(self.values, self.weights)
