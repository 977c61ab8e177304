"""What a trace looks like, in numbers: the definitions are those of published trace statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workloads.prefix import PrefixIds
from workloads.trace import Trace

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def describe(trace: Trace) -> dict[str, float]:
    """Requests, duration, rate, burstiness, lengths, prefix reuse. What cannot be computed is absent.

    ``interarrival_cv``: standard deviation over mean of the gaps (1 for Poisson). ``prefix_hit_ratio``: the share of
    prefix ids that an endless cache would have seen before, each counted from the start of its prompt.
    """
    numbers: dict[str, float] = {"requests": len(trace), "duration_s": trace.duration_s}
    if trace.mean_rate_rps is not None:
        gaps = np.diff(trace.arrival_s)
        numbers["mean_rate_rps"] = trace.mean_rate_rps
        numbers["interarrival_cv"] = float(gaps.std() / gaps.mean())
    for column in ("prompt_tokens", "output_tokens"):
        numbers |= _lengths(column, getattr(trace, column))
    if trace.prefix_ids is not None:
        numbers |= _reuse(trace.prefix_ids)
    return numbers


def _lengths(column: str, tokens: NDArray[np.int32]) -> dict[str, float]:
    numbers = {f"{column}_mean": float(tokens.mean())}
    for name, quantile in _QUANTILES.items():
        numbers[f"{column}_{name}"] = float(np.quantile(tokens, quantile))
    return numbers | {f"{column}_max": float(tokens.max())}


def _reuse(prefix_ids: PrefixIds) -> dict[str, float]:
    seen: set[int] = set()
    blocks = hits = 0
    for ids in prefix_ids:
        blocks += len(ids)
        # Ids are chained: those seen before come first.
        hits += sum(block in seen for block in ids)
        seen.update(ids)
    numbers: dict[str, float] = {"prefix_blocks": blocks, "prefix_blocks_distinct": len(seen)}
    return numbers | {"prefix_hit_ratio": hits / blocks} if blocks else numbers


def rate_per_bin(trace: Trace, bins: int = 120) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges of ``bins`` equal stretches of the trace and the requests per second in each; empty without a duration."""
    if trace.duration_s == 0.0:
        return np.empty(0), np.empty(0)
    counts, edges = np.histogram(trace.arrival_s, bins=bins)
    return edges, counts / np.diff(edges)


def dispersion(trace: Trace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bin lengths in seconds and the index of dispersion of the counts in such bins: variance over mean, 1 for Poisson.

    From one mean gap to a tenth of the trace, in steps of a factor of about 1.6.
    """
    shortest_s = trace.duration_s / max(len(trace) - 1, 1)
    longest_s = trace.duration_s / 10.0
    if not 0.0 < shortest_s < longest_s:
        return np.empty(0), np.empty(0)
    widths = np.geomspace(shortest_s, longest_s, 2 + int(np.log(longest_s / shortest_s) / 0.5))
    since_first = trace.arrival_s - trace.arrival_s[0]
    indices = []
    for width in widths.tolist():
        counts = np.bincount((since_first / width).astype(np.int64))[:-1]  # the last bin is cut off
        indices.append(float(counts.var() / counts.mean()))
    return widths, np.array(indices)


def reuse_so_far(trace: Trace) -> NDArray[np.float64]:
    """After each request, the share of all prefix ids up to there that an endless cache had seen; empty without ids."""
    if trace.prefix_ids is None:
        return np.empty(0)
    seen: set[int] = set()
    hits = np.zeros(len(trace), dtype=np.int64)
    for row, ids in enumerate(trace.prefix_ids):
        hits[row] = sum(block in seen for block in ids)
        seen.update(ids)
    blocks = np.cumsum([len(ids) for ids in trace.prefix_ids])
    shares: NDArray[np.float64] = np.cumsum(hits) / np.maximum(blocks, 1)
    return shares
