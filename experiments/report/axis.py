"""Along what a comparison is drawn: offered rate, a swept assumption, or nothing (one cell per workload)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.compare import Comparison
from experiments.compare_config import CompareConfig


@dataclass(frozen=True)
class Point:
    """One cell of the comparison, placed."""

    workload: str
    rate: float | None
    x: float


@dataclass(frozen=True)
class Axis:
    """Panels side by side, each with points along x; without a label every panel holds a single point."""

    label: str | None
    panels: tuple[tuple[str, tuple[Point, ...]], ...]


def axis_of(comparison: Comparison) -> Axis:
    """Rates if there are two or more, else the sweep if there is one, else single points."""
    config = comparison.config
    rates: Sequence[float | None] = config.rates or (None,)
    if len(rates) > 1:
        panels = [
            (
                workload,
                tuple(Point(workload, rate, _place(comparison, workload, rate)) for rate in sorted_rates(config)),
            )
            for workload in config.workloads
        ]
        return Axis("offered rate (requests/s)", tuple(panels) if len(panels) > 1 else (("", panels[0][1]),))
    if config.sweep is not None:
        places = sorted((value, workload) for workload, value in config.sweep.values.items())
        return Axis(config.sweep.label, (("", tuple(Point(name, rates[0], value) for value, name in places)),))
    return Axis(None, tuple((workload, (Point(workload, rates[0], 0.0),)) for workload in config.workloads))


def sorted_rates(config: CompareConfig) -> list[float]:
    """Ascending."""
    return sorted(config.rates)


def _place(comparison: Comparison, workload: str, rate: float) -> float:
    """The rate as set; a scale on recorded arrivals is none, so what its runs say was offered, over all of them."""
    if comparison.config.rate_key == "rate_rps":
        return rate
    found = [
        value
        for variant in comparison.config.variants
        for value in comparison.values("offered_rps", variant, workload, rate).values()
    ]
    return sum(found) / len(found) if found else rate


def telling_point(comparison: Comparison) -> Point:
    """The cell in which the variants' primary metric differs most: what distributions and timelines are drawn for."""
    config = comparison.config
    points = [point for _, panel in axis_of(comparison).panels for point in panel]

    def spread(point: Point) -> float:
        means = [
            sum(values) / len(values)
            for variant in config.variants
            if (values := list(comparison.values(config.primary_metric, variant, point.workload, point.rate).values()))
        ]
        return max(means) - min(means) if means else -1.0

    return max(points, key=spread)
