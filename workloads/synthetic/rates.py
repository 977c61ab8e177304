"""Arrivals whose rate changes with time: Poisson processes on a clock that runs faster where the rate is higher."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from workloads.errors import TraceError, shown
from workloads.synthetic import checks

Steps = tuple[tuple[float, float], ...]
_STEPS_ALLOWED = "START:RATE/START:RATE/..., from 0 on, ascending seconds, rates >= 0, not all 0"
_BISECTIONS = 60


@dataclass(frozen=True)
class Diurnal:
    """Poisson with a rate that swings as a cosine around ``rate_rps``: highest at ``peak_s``, lowest half a period on.

    ``swing``: the highest rate is (1 + swing) times the mean, the lowest (1 - swing).
    """

    kind: ClassVar[str] = "diurnal"
    rate_rps: float
    swing: float
    period_s: float = 86_400.0
    peak_s: float = 0.0

    def __post_init__(self) -> None:
        checks.rate(self, rate_rps=self.rate_rps)
        checks.between(self, 0.0, 1.0, swing=self.swing)
        checks.positive(self, period_s=self.period_s)
        checks.between(self, -1e12, 1e12, peak_s=self.peak_s)

    def times_s(self, requests: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """See :class:`~workloads.synthetic.arrivals.Arrivals`. Inverts the expected count by bisection."""
        due = np.cumsum(rng.exponential(1.0 / self.rate_rps, size=requests))
        turn = 2.0 * math.pi / self.period_s
        reach_s = 2.0 * self.swing / turn
        low, high = np.maximum(due - reach_s, 0.0), due + reach_s
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2.0
            swung = np.sin(turn * (middle - self.peak_s)) + math.sin(turn * self.peak_s)
            early = middle + self.swing / turn * swung < due
            low, high = np.where(early, middle, low), np.where(early, high, middle)
        return np.maximum.accumulate(high)


@dataclass(frozen=True)
class Piecewise:
    """Poisson with a rate that is constant from step to step: ``0:4/600:12/1200:2`` (seconds:requests per second).

    The last rate holds for ever, or until ``repeat_s``, where the first one begins again.
    """

    kind: ClassVar[str] = "piecewise"
    steps: str
    repeat_s: float | None = None

    def __post_init__(self) -> None:
        steps = self.parsed()
        for _, rate in steps:
            if rate:
                checks.rate(self, steps=rate)
        if self.repeat_s is None:
            checks.rate(self, last_rate=steps[-1][1])
        else:
            checks.between(self, math.nextafter(steps[-1][0], math.inf), 1e12, repeat_s=self.repeat_s)

    def parsed(self) -> Steps:
        """Start and rate of each step. Raises TraceError."""
        try:
            pairs = [step.split(":") for step in str(self.steps).split("/")]
            steps = tuple((float(start), float(rate)) for start, rate in pairs)
        except ValueError as error:
            raise TraceError(f"Piecewise: steps={shown(self.steps)} (allowed: {_STEPS_ALLOWED})") from error
        starts, rates = zip(*steps, strict=True)
        ascending = all(early < late for early, late in pairwise(starts))
        finite = all(map(math.isfinite, (*starts, *rates)))
        if not finite or starts[0] != 0.0 or not ascending or min(rates) < 0.0 or max(rates) == 0.0:
            raise TraceError(f"Piecewise: steps={shown(self.steps)} (allowed: {_STEPS_ALLOWED})")
        return steps

    def times_s(self, requests: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """See :class:`~workloads.synthetic.arrivals.Arrivals`. Inverts the expected count, piece by piece."""
        due = np.cumsum(rng.exponential(1.0, size=requests))
        starts, rates = np.array(self.parsed()).T
        if self.repeat_s is None:
            ends, rounds, left = np.append(starts[1:], np.inf), np.zeros(requests), due
        else:
            ends = np.append(starts[1:], self.repeat_s)
            per_round = float(((ends - starts) * rates).sum())
            rounds, left = np.divmod(due, per_round)
        before = np.concatenate(([0.0], np.cumsum((ends[:-1] - starts[:-1]) * rates[:-1])))
        busy = rates > 0.0
        step = np.maximum(np.searchsorted(before[busy], left, side="right") - 1, 0)
        times = starts[busy][step] + (left - before[busy][step]) / rates[busy][step]
        return np.maximum.accumulate(times + rounds * (self.repeat_s or 0.0))
