"""The token times of a run: what ``tokens.py`` rebuilds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reference_impl.metrics.log import Bools, Floats, Ints
from reference_impl.metrics.statistics import Weighted


@dataclass(frozen=True)
class DecodeIterations:
    """Iterations with decodes of all decode lanes, by instance, then by time."""

    start_s: Floats
    end_s: Floats
    instances: Ints
    """Ascending ids."""
    offsets: Ints
    """Instance ``instances[i]`` holds ``offsets[i]`` up to ``offsets[i + 1]``."""


@dataclass(frozen=True)
class TokenLog:
    """Token times as points (a prompt's end, what a client saw) and slices of iterations, by request, then by time."""

    iterations: DecodeIterations
    request: Ints
    is_slice: Bools
    point_s: Floats
    """Time of the token where the item is a point."""
    low: Ints
    high: Ints
    """Slice of ``iterations.end_s``; empty slices are left out."""
    size: Ints
    """Tokens of the point: more than one where a client was given them together."""

    def times_s(self, request: int) -> Floats:
        """Token times of one request (row number in the trace), ascending."""
        return self._times_s(request, self.size)

    def moments_s(self, request: int) -> Floats:
        """The same, without repeating the time of tokens that came together."""
        return self._times_s(request, np.ones_like(self.size))

    def _times_s(self, request: int, size: Ints) -> Floats:
        first, last = np.searchsorted(self.request, [request, request + 1])
        parts = [
            self.iterations.end_s[self.low[i] : self.high[i]] if self.is_slice[i] else np.full(size[i], self.point_s[i])
            for i in range(first, last)
        ]
        return np.concatenate([np.empty(0), *parts])

    def flat_s(self, requests: Ints) -> Floats:
        """Token times of several requests, one after the other, each ascending."""
        first, last = np.searchsorted(self.request, requests), np.searchsorted(self.request, requests + 1)
        item = _ranges(first, last)
        tokens = np.where(self.is_slice, self.high - self.low, self.size)[item]
        of = np.repeat(item, tokens)
        step = _ranges(self.low[item], self.low[item] + tokens)
        end_s = self.iterations.end_s
        inside = self.is_slice[of]
        times_s: Floats = self.point_s[of]
        times_s[inside] = end_s[step[inside]]
        return times_s

    def counts(self, size: int, until_s: float = np.inf) -> Ints:
        """Tokens of each request id below ``size`` that came up to a moment."""
        done = np.append(0, np.cumsum(self.iterations.end_s <= until_s))
        points = np.where(self.point_s <= until_s, self.size, 0)
        tokens = np.where(self.is_slice, done[self.high] - done[self.low], points)
        return np.bincount(self.request, weights=tokens, minlength=size).astype(np.int64)

    def gaps(self, keep: Bools | None = None) -> Weighted:
        """All gaps between consecutive tokens of a request, pooled; ``keep`` selects by request id.

        There are none between tokens that came together.
        """
        item = np.arange(len(self.request)) if keep is None else np.flatnonzero(keep[self.request])
        inner = item[self.is_slice[item]]
        end_s = self.iterations.end_s
        shared = _covered(self.low[inner] + 1, self.high[inner], len(end_s))[1:]
        first_s, last_s = self.point_s.copy(), self.point_s.copy()
        first_s[inner], last_s[inner] = end_s[self.low[inner]], end_s[self.high[inner] - 1]
        same = self.request[item][1:] == self.request[item][:-1]
        between = (first_s[item][1:] - last_s[item][:-1])[same]
        steps = np.diff(end_s)
        return Weighted.of(np.concatenate([steps, between]), np.concatenate([shared, np.ones(len(between), np.int64)]))

    def emissions(self, keep: Bools | None = None) -> tuple[Floats, Ints]:
        """Moments at which tokens came, unsorted, and how many."""
        item = np.arange(len(self.request)) if keep is None else np.flatnonzero(keep[self.request])
        inner, points = item[self.is_slice[item]], item[~self.is_slice[item]]
        per_iteration = _covered(self.low[inner], self.high[inner], len(self.iterations.end_s))
        times = np.concatenate([self.iterations.end_s, self.point_s[points]])
        return times, np.concatenate([per_iteration, self.size[points]])


def _ranges(low: Ints, high: Ints) -> Ints:
    """``low[0], ..., high[0] - 1, low[1], ...``."""
    size = high - low
    ranges: Ints = np.arange(int(size.sum())) + np.repeat(low - np.cumsum(size) + size, size)
    return ranges


def _covered(low: Ints, high: Ints, size: int) -> Ints:
    """How many of the ranges ``low <= i < high`` hold each i below ``size``."""
    wide = high > low
    change = np.bincount(low[wide], minlength=size + 1) - np.bincount(high[wide], minlength=size + 1)
    return np.cumsum(change[:size]).astype(np.int64)
