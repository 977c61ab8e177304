"""Straight lines through few noisy points: how semi_pd learns equation 4 of its paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Line(NamedTuple):
    """``slope * regressor + intercept``."""

    slope: float
    intercept: float

    def at(self, regressor: float) -> float:
        return self.slope * regressor + self.intercept


def fit_line(points: Iterable[tuple[float, float]], prior: Line) -> Line:
    """The least-squares line through (regressor, latency in s) with slope > 0 and intercept >= 0.

    Latency falls with a larger share, so a line that says otherwise is noise: then, and where one regressor value is
    all there is, the line through the origin is taken. Without any point, ``prior``.
    """
    known = list(points)
    if not known:
        return prior
    mean_x = sum(x for x, _ in known) / len(known)
    mean_y = sum(y for _, y in known) / len(known)
    spread = sum((x - mean_x) ** 2 for x, _ in known)
    if spread > (1e-6 * mean_x) ** 2 * len(known):
        slope = sum((x - mean_x) * (y - mean_y) for x, y in known) / spread
        intercept = mean_y - slope * mean_x
        if slope > 0 and intercept >= 0:
            return Line(slope, intercept)
    return Line(sum(x * y for x, y in known) / sum(x * x for x, _ in known), 0.0)


def linear_percentile(samples: Sequence[float], percent: float) -> float | None:
    """Percentile by linear interpolation (numpy's default); None without samples."""
    if not samples:
        return None
    ordered = sorted(samples)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
