"""Had the load settled when the last request arrived? If not, every figure depends on how long the run was.

Outstanding requests are those that arrived and have neither finished nor been rejected. Their mean over the last fifth
of the arrivals' span is held against that over the middle fifth, raised by what the arrival rate grew in between: by
Little's law a system that keeps up holds requests in proportion to the rate at which they come. A queue that grows
steadily from nothing gives +0.8, a settled one 0 give or take chance.
"""

from __future__ import annotations

import math

import numpy as np

from reference_impl.metrics.log import Floats, RunLog

GROWTH_LIMIT = 0.1
"""A smaller growth is taken for a settled load."""
_DEVIATIONS = 2.0
_FIFTHS = ((0.4, 0.6), (0.8, 1.0))


def load_growth(run: RunLog) -> dict[str, float]:
    """``load_growth`` (relative) and ``load_growing`` (1 or 0); nothing where all requests arrive at one moment.

    Growing: by more than GROWTH_LIMIT, and by more than two standard deviations of the difference of two Poisson
    counts of these sizes, so that a handful of requests is no trend.
    """
    arrivals_s = np.sort(run.rows["arrive"].floats("time_s"))
    span_s = float(np.ptp(arrivals_s)) if len(arrivals_s) else 0.0
    if not span_s > 0:
        return {}
    gone_s = np.sort(np.concatenate([run.rows[kind].floats("time_s") for kind in ("finish", "reject")]))
    windows = [tuple(float(arrivals_s[0]) + part * span_s for part in fifth) for fifth in _FIFTHS]
    (middle, middle_came), (last, last_came) = (_level(arrivals_s, gone_s, begin, end) for begin, end in windows)
    expected = middle * max(1.0, last_came / middle_came) if middle_came else middle
    grown = last - expected
    chance = _DEVIATIONS * math.sqrt(last + expected)
    growing = {"load_growing": float(grown > GROWTH_LIMIT * expected and grown > chance)}
    return {"load_growth": grown / expected, **growing} if expected > 0 else growing


def _level(arrivals_s: Floats, gone_s: Floats, begin_s: float, end_s: float) -> tuple[float, int]:
    """Mean outstanding requests from ``begin_s`` to ``end_s``, and how many arrived in that time."""
    came = int(np.searchsorted(arrivals_s, end_s, "right") - np.searchsorted(arrivals_s, begin_s, "right"))
    present_s = _spent(arrivals_s, begin_s, end_s) - _spent(gone_s, begin_s, end_s)
    return present_s / (end_s - begin_s), came


def _spent(changes_s: Floats, begin_s: float, end_s: float) -> float:
    """Sum over the changes of the seconds between each and ``end_s``, those before ``begin_s`` cut off there."""
    before = changes_s[: np.searchsorted(changes_s, end_s, "right")]
    return float(np.sum(end_s - np.maximum(before, begin_s)))
