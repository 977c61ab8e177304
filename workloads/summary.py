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
