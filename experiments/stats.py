"""Is one policy better than another? Paired differences over seeds, an interval, a verdict.

The unit of repetition is the seed, never the request: requests of one run share its queues, so treating them as
independent would make every interval far too narrow. Both policies see the same seeds, and a seed changes the traffic;
what is judged is the mean over seeds of (variant - baseline).

Which interval (``interval``):

* fewer than 10 seeds: Student's t on the paired differences. The percentile and BCa bootstraps resample a handful of
  values and cannot leave their range; at 5 seeds a nominal 95 % percentile interval holds the truth about 84 % of the
  time, t 95 % (normal differences) or 93 % (skewed ones).
* 10 seeds or more: bootstrap over seeds, percentile interval widened for small samples as Hesterberg proposes ("What
  Teachers Should Know About the Bootstrap", 2015); it follows skewed differences and assumes no normality.

``tests/experiments/test_stats.py`` measures the coverage of both. An interval speaks for one comparison; a table of
many verdicts holds some wrong ones by chance, which the practical-effect threshold makes rare but does not exclude.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["better", "worse", "no difference", "inconclusive"]
Method = Literal["t", "bootstrap"]

MIN_BOOTSTRAP_SEEDS = 10
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a mean over seeds."""

    mean: float
    low: float
    high: float
    seeds: int
    confidence: float
    method: Method


def interval(values: Sequence[float], confidence: float = 0.95, *, seed: int = 0) -> Interval | None:
    """Interval of the mean; one value per seed. None for fewer than two seeds: a single run says nothing about spread.

    Deterministic: ``seed`` starts the bootstrap's own generator.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; allowed: between 0 and 1, for instance 0.95")
    sample = np.asarray(values, np.float64)
    if not np.isfinite(sample).all():
        raise ValueError(f"values must be finite, got {list(values)}")
    if len(sample) < 2:
        return None
    if len(sample) < MIN_BOOTSTRAP_SEEDS:
        return _student_t(sample, confidence)
    return _bootstrap(sample, confidence, seed)


def judge(found: Interval | None, min_effect: float, higher_is_better: bool) -> Verdict:
    """Verdict on a paired difference (variant - baseline).

    ``better`` / ``worse``: the interval leaves zero out and the mean is at least ``min_effect`` (a practical effect).
    ``no difference``: the whole interval is within ``min_effect`` of zero. Anything else is ``inconclusive``.
    """
    if min_effect < 0:
        raise ValueError(f"min_effect is {min_effect}; allowed: zero or more, in the metric's unit")
    if found is None:
        return "inconclusive"
    if -min_effect <= found.low and found.high <= min_effect:
        return "no difference"
    if found.low > 0 and found.mean >= min_effect:
        return "better" if higher_is_better else "worse"
    if found.high < 0 and found.mean <= -min_effect:
        return "worse" if higher_is_better else "better"
    return "inconclusive"


def paired_d(values: Sequence[float]) -> float | None:
    """Standardised effect of paired differences: their mean over their sample standard deviation (Cohen's d_z).

    None for fewer than two seeds, or where all differences are equal.
    """
    sample = np.asarray(values, np.float64)
    spread = float(sample.std(ddof=1)) if len(sample) > 1 else 0.0
    return float(sample.mean()) / spread if spread > 0 else None


def t_quantile(confidence: float, degrees: int) -> float:
    """Half-width in standard errors of a two-sided Student interval: P(abs(T) <= result) = confidence."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        low, high = (angle, high) if _t_two_sided(angle, degrees) < confidence else (low, angle)
    return math.tan(low) * math.sqrt(degrees)


def _t_two_sided(angle: float, degrees: int) -> float:
    """P(abs(T) <= tan(angle) sqrt(degrees)); the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1, degrees // 2 + 1):
        total += term
        term *= square * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _student_t(sample: NDArray[np.float64], confidence: float) -> Interval:
    mean, size = float(sample.mean()), len(sample)
    half = t_quantile(confidence, size - 1) * float(sample.std(ddof=1)) / math.sqrt(size)
    return Interval(mean, mean - half, mean + half, size, confidence, "t")


def _bootstrap(sample: NDArray[np.float64], confidence: float, seed: int) -> Interval:
    size = len(sample)
    drawn = np.random.default_rng(seed).integers(0, size, (_RESAMPLES, size))
    widened = NormalDist().cdf(-math.sqrt(size / (size - 1)) * t_quantile(confidence, size - 1))
    low, high = np.quantile(sample[drawn].mean(axis=1), [widened, 1 - widened])
    return Interval(float(sample.mean()), float(low), float(high), size, confidence, "bootstrap")
