"""Stationary renewal processes: gaps of one law, begun as if they had been going on for ever.

The first gap is what is left of a gap under way (a uniform share of a length-biased one), so the mean number of
arrivals in any stretch is rate x length. Beginning with a whole gap would give (CV^2 - 1) / 2 too many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Draw = Callable[[float, int, np.random.Generator], NDArray[np.float64]]


class Family(NamedTuple):
    """A law of positive numbers with a shape and scale 1."""

    least_shape: float
    """Below, gaps are so uneven that no stretch shows their mean."""
    mean: Callable[[float], float]
    gaps: Draw
    length_biased: Draw


def _gamma(shape: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.gamma(shape, size=count)


def _gamma_biased(shape: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.gamma(shape + 1.0, size=count)


def _weibull(shape: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.weibull(shape, size=count)


def _weibull_biased(shape: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.asarray(rng.gamma(1.0 + 1.0 / shape, size=count) ** (1.0 / shape))


def _weibull_mean(shape: float) -> float:
    return math.gamma(1.0 + 1.0 / shape)


MAX_SHAPE = 1e6
FAMILIES: Mapping[str, Family] = {
    "Gamma": Family(0.001, lambda shape: shape, _gamma, _gamma_biased),
    "Weibull": Family(0.1, _weibull_mean, _weibull, _weibull_biased),
}


def arrivals_s(
    family: Family, shape: float, rate_rps: float, length_s: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Ascending times in [0, ``length_s``) of a process of ``rate_rps``."""
    unit_s = 1.0 / (rate_rps * family.mean(shape))
    first = rng.random() * float(family.length_biased(shape, 1, rng)[0]) * unit_s
    parts = [np.array([first])]
    last = first
    while last < length_s:
        some = int((length_s - last) * rate_rps * 1.1) + 16
        times = last + np.cumsum(family.gaps(shape, some, rng)) * unit_s
        parts.append(times)
        last = float(times[-1])
    times = np.concatenate(parts)
    return times[times < length_s]
