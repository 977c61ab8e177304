"""Piecewise linear curves on a sorted grid."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import inf

Curve = tuple[tuple[float, ...], tuple[float, ...]]
"""Grid and values."""


def line(curve: Curve, at: float) -> tuple[float, float, float]:
    """Value and slope at ``at``, and where that line ends (infinity past the last point but one).

    Beyond its ends a curve goes on along its first and last segment.
    """
    grid, values = curve
    low = _segment(grid, at)
    if low is None:
        return values[0], 0.0, inf
    slope = (values[low + 1] - values[low]) / (grid[low + 1] - grid[low])
    end = grid[low + 1] if low + 2 < len(grid) else inf
    return values[low] + slope * (at - grid[low]), slope, end


def value(curve: Curve, at: float) -> float:
    """Value at ``at``."""
    return line(curve, at)[0]


def blend(grid: Sequence[float], at: float) -> tuple[tuple[int, float], ...]:
    """Indices and weights (adding up to 1) that interpolate at ``at``: held below the grid, extrapolated above it."""
    low = _segment(grid, at)
    if low is None or at <= grid[0]:
        return ((0, 1.0),)
    weight = (at - grid[low]) / (grid[low + 1] - grid[low])
    if weight in (0.0, 1.0):
        return ((low + int(weight), 1.0),)
    return ((low, 1.0 - weight), (low + 1, weight))


def curve_of(points: Mapping[float, float]) -> Curve:
    """The curve through measured points, made non-decreasing and continued to 0.

    A longer context never costs less; what says so in a measurement is noise. Below the first point the curve goes on
    along the first segment, yet not under half of that point, so it stays positive.
    """
    grid = tuple(sorted(points))
    values = rising(tuple(points[at] for at in grid))
    if grid[0] <= 0 or len(grid) == 1:
        return grid, values
    slope = (values[1] - values[0]) / (grid[1] - grid[0])
    return (0.0, *grid), (max(values[0] - slope * grid[0], values[0] / 2), *values)


def rising(values: tuple[float, ...]) -> tuple[float, ...]:
    """The running maximum."""
    top, raised = values[0], []
    for item in values:
        top = max(top, item)
        raised.append(top)
    return tuple(raised)


def weighted(parts: Sequence[tuple[Curve, float]]) -> Curve:
    """The weighted sum of curves on the union of their grids, made non-decreasing, never under half its first part."""
    grid = tuple(sorted({at for (points, _), _ in parts for at in points}))
    least = 0.5 * parts[0][0][1][0]
    sums = tuple(max(least, sum(weight * value(curve, at) for curve, weight in parts)) for at in grid)
    return grid, rising(sums)


def _segment(grid: Sequence[float], at: float) -> int | None:
    """Index of the segment that covers ``at`` (a grid point starts its segment); None for a grid of one point."""
    if len(grid) == 1:
        return None
    return min(max(bisect_right(grid, at) - 1, 0), len(grid) - 2)
