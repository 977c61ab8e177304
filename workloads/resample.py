"""Transformations by chance. Each draws only from the generator (or the seed) that it is given."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workloads import prefix, transform
from workloads.errors import TraceError

if TYPE_CHECKING:
    from workloads.trace import Trace


def sample(trace: Trace, count: int, rng: np.random.Generator) -> Trace:
    """See :meth:`Trace.sample`."""
    transform.check_count(trace, "sample of", count, 1, len(trace))
    chosen = np.sort(rng.choice(len(trace), size=count, replace=False))
    return transform.take(trace, f"sample({count})", chosen)


def retime_poisson(trace: Trace, rate_rps: float, rng: np.random.Generator) -> Trace:
    """See :meth:`Trace.retime_poisson`. The first gap counts from time 0."""
    transform.check_positive(trace, "rate in requests/s", rate_rps)
    arrivals = np.cumsum(rng.exponential(1.0 / rate_rps, size=len(trace)))
    return transform.derive(trace, f"retime_poisson({rate_rps})", arrival_s=arrivals)


def spread_ties(trace: Trace, period_s: float, rng: np.random.Generator) -> Trace:
    """See :meth:`Trace.spread_ties`. Refused where different recorded times are closer than ``period_s``."""
    transform.check_positive(trace, "period in seconds", period_s)
    gaps = np.diff(trace.arrival_s)
    close = gaps[(gaps > 0.0) & (gaps < period_s * (1.0 - 1e-9))]
    if close.size:
        allowed = f"at most the tick of the recording clock, {close.min()} s"
        raise TraceError(f"{trace.name}: ties spread over {period_s!r} s (allowed: {allowed})")
    # Sorting restores the order inside each tick; ticks do not overlap.
    arrivals = np.sort(trace.arrival_s + rng.uniform(0.0, period_s, size=len(trace)))
    return transform.derive(trace, f"spread_ties({period_s})", arrival_s=arrivals)


def bootstrap(trace: Trace, count: int, rate_rps: float, rng: np.random.Generator) -> Trace:
    """See :meth:`Trace.bootstrap`."""
    transform.check_count(trace, "bootstrap of", count, 1, None)
    transform.check_positive(trace, "rate in requests/s", rate_rps)
    drawn = rng.integers(len(trace), size=count)
    arrivals = np.cumsum(rng.exponential(1.0 / rate_rps, size=count))
    return _take_copies(trace, f"bootstrap({count}, {rate_rps})", drawn, arrivals)


def resample_blocks(trace: Trace, seed: int, block_s: float) -> Trace:
    """See :meth:`Trace.resample_blocks`: a circular moving-block bootstrap.

    The trace, closed to a circle with one mean gap, is replaced by stretches of ``block_s`` seconds from random starts,
    to the same total length. So the expected rate stays, bursts shorter than a block stay, and slower changes are
    shuffled. A request that is drawn more than once keeps the prefix that it shared with others; what only it had
    becomes new for each copy. (On the Mooncake traces this keeps the hit ratio of an endless cache within 0.02, for
    blocks of 30 to 120 s, where plain repetition raises it by 0.1 to 0.2.)
    """
    transform.check_positive(trace, "block length in seconds", block_s)
    transform.check_count(trace, "seed", seed, 0, None)
    if trace.duration_s == 0.0:
        raise TraceError(f"{trace.name}: all requests arrive at one time, there is nothing to resample in time")
    rng = np.random.default_rng(seed)
    circle_s = trace.duration_s * len(trace) / (len(trace) - 1)
    starts = rng.uniform(0.0, circle_s, size=int(np.ceil(circle_s / block_s)))
    drawn, arrivals = _stretches(trace.arrival_s - trace.arrival_s[0], circle_s, starts, block_s)
    if drawn.size == 0:
        drawn_with = f"blocks of {block_s!r} s drawn with seed {seed}"
        raise TraceError(f"{trace.name}: {drawn_with} hold no request; use longer blocks")
    return _take_copies(trace, f"resample_blocks({seed}, {block_s})", drawn, arrivals)


def _stretches(
    times: NDArray[np.float64], circle_s: float, starts: NDArray[np.float64], block_s: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows and new times of the stretches that begin at ``starts`` on the circle, laid end to end."""
    twice = np.concatenate((times, times + circle_s))
    rows, arrivals = [], []
    for number, start in enumerate(starts):
        at_s = number * block_s
        length_s = min(block_s, circle_s - at_s)
        low, high = np.searchsorted(twice, (start, start + length_s))
        rows.append(np.arange(low, high) % len(times))
        arrivals.append(np.minimum(twice[low:high] - start + at_s, at_s + length_s))
    return np.concatenate(rows), np.concatenate(arrivals)


def _take_copies(trace: Trace, change: str, drawn: NDArray[np.int64], arrivals: NDArray[np.float64]) -> Trace:
    """The rows ``drawn``, some more than once: copies of a request are different requests with a common past.

    Copies stand for themselves: who followed whom in a session is given up (:func:`workloads.transform.take`).
    """
    columns: dict[str, Any] = {"arrival_s": arrivals}
    copy = _copy_numbers(drawn) if trace.prefix_ids is not None or trace.session_id is not None else []
    if trace.prefix_ids is not None:
        columns["prefix_ids"] = _ids_of_copies(trace.prefix_ids, drawn, copy)
    if trace.session_id is not None:
        columns["session_id"] = tuple(
            [
                f"{trace.session_id[row]}#{number}" if number else trace.session_id[row]
                for row, number in zip(drawn.tolist(), copy, strict=True)
            ]
        )
    return transform.take(trace, change, drawn, **columns)


def _copy_numbers(drawn: NDArray[np.int64]) -> list[int]:
    """For each draw, how often its row was drawn before."""
    seen: Counter[int] = Counter()
    numbers = []
    for row in drawn.tolist():
        numbers.append(seen[row])
        seen[row] += 1
    return numbers


def _ids_of_copies(ids: prefix.PrefixIds, drawn: NDArray[np.int64], copy: list[int]) -> prefix.PrefixIds:
    """Later copies get new numbers for the ids that only their own request had (a tail, since ids are chained)."""
    requests_with = Counter(block for request in ids for block in request)
    fresh = max(requests_with, default=-1) + 1
    taken = []
    for row, number in zip(drawn.tolist(), copy, strict=True):
        request = ids[row]
        if number:
            shared = sum(requests_with[block] > 1 for block in request)
            private = len(request) - shared
            request = request[:shared] + tuple(range(fresh, fresh + private))
            fresh += private
        taken.append(request)
    return tuple(taken)
