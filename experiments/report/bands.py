"""A policy's values along the axis: means, their intervals, and which of them to take with care."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.report.labels import plain
from experiments.stats import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Dot:
    """One mean over seeds, placed."""

    x: float
    mean: float
    band: Interval | None
    """None: too few seeds."""
    hollow: bool
    """The load was still growing at the last arrival."""

    @property
    def low(self) -> float:
        """Lower end of what is drawn."""
        return self.band.low if self.band else self.mean

    @property
    def high(self) -> float:
        """Upper end of what is drawn."""
        return self.band.high if self.band else self.mean


def draw(ax: Axes, dots: Sequence[Dot], colour: str, label: str, *, joined: bool, share: bool = False) -> None:
    """A line with its confidence band, or single points with error bars; a share's band ends at 0 and 1."""
    if not dots:
        return
    lows = [max(dot.low, 0.0) if share else dot.low for dot in dots]
    highs = [min(dot.high, 1.0) if share else dot.high for dot in dots]
    if joined and len(dots) > 1:
        _line(ax, dots, lows, highs, colour, label)
    else:
        _points(ax, dots, lows, highs, colour, label)
    hollow = [dot for dot in dots if dot.hollow]
    ax.plot(
        [dot.x for dot in hollow],
        [dot.mean for dot in hollow],
        linestyle="",
        marker="o",
        markersize=6.5,
        markerfacecolor="white",
        markeredgecolor=colour,
        markeredgewidth=1.6,
        zorder=4,
    )


def _line(
    ax: Axes, dots: Sequence[Dot], lows: Sequence[float], highs: Sequence[float], colour: str, label: str
) -> None:
    import seaborn as sns

    xs, means = [dot.x for dot in dots], [dot.mean for dot in dots]
    sns.lineplot(x=xs, y=means, ax=ax, color=colour, label=plain(label), marker="o", markeredgewidth=0, errorbar=None)
    ax.fill_between(xs, lows, highs, color=colour, alpha=0.14, linewidth=0)
    if (own := ax.get_legend()) is not None:
        own.remove()


def _points(
    ax: Axes, dots: Sequence[Dot], lows: Sequence[float], highs: Sequence[float], colour: str, label: str
) -> None:
    xs, means = [dot.x for dot in dots], [dot.mean for dot in dots]
    errors = [[m - low for m, low in zip(means, lows, strict=True)], [h - m for m, h in zip(means, highs, strict=True)]]
    ax.errorbar(
        xs, means, yerr=errors, fmt="o", color=colour, label=plain(label), capsize=4, linewidth=1.4, markersize=6
    )
