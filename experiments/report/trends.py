"""Figures along the axis: the primary metric, its difference to the baseline, latencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.compare import Comparison
from experiments.report.axis import Axis, Point
from experiments.report.bands import Dot, draw
from experiments.report.facts import target_of
from experiments.report.labels import metric_label, plain
from experiments.report.theme import INK, MUTED, Colours, legend, panels, plain_ticks, to_svg
from experiments.settled import is_marked, still_growing
from experiments.stats import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_TARGET = 0.90
_MOST_TICKS = 8
"""Up to so many points have a tick each."""


def primary_metric(comparison: Comparison, axis: Axis, colours: Colours) -> str:
    """Mean over seeds of the primary metric, with the confidence interval as a band."""
    metric = comparison.config.primary_metric
    rows, columns = _grid(axis)
    figure = panels(rows, columns, 0.5 + 2.7 * rows, sharey="all")
    for ax, (title, points) in zip(figure.axes, axis.panels, strict=False):
        ax.set_title(plain(title))
        _variants(ax, comparison, axis, colours, metric, points)
        if metric.startswith("attainment"):
            ax.axhline(_TARGET, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
            ax.set_ylim(-0.03, 1.03)
        _label(ax, axis, metric_label(metric))
    _finish(figure, axis)
    return to_svg(figure, f"{metric_label(metric)} by {axis.label or 'workload'}")


def differences(comparison: Comparison, axis: Axis, colours: Colours) -> str:
    """Each variant minus the baseline, paired by seed; between the dotted lines a difference does not matter."""
    metric = comparison.config.primary_metric
    rows, columns = _grid(axis)
    figure = panels(rows, columns, 0.5 + 2.5 * rows, sharey="all")
    for ax, (title, points) in zip(figure.axes, axis.panels, strict=False):
        ax.set_title(plain(title))
        ax.axhline(0, color=INK, linewidth=1)
        _differences(ax, comparison, axis, colours, points)
        _label(ax, axis, f"difference in {metric_label(metric)}")
    _finish(figure, axis)
    return to_svg(figure, f"Difference to {comparison.config.baseline_name} in {metric_label(metric)}")


def latencies(comparison: Comparison, axis: Axis, colours: Colours) -> str | None:
    """Median (dashed) and 99th percentile (solid) of TTFT and TPOT, one row each; None where no run has any."""
    families = [f for f in ("ttft", "tpot") if any(f"{f}_p99_ms" in o.metrics for o in comparison.outcomes.values())]
    if not families:
        return None
    columns = len(axis.panels)
    figure = panels(len(families), columns, 0.5 + 2.4 * len(families), sharex="col", sharey="row")
    for row, family in enumerate(families):
        for column, (title, points) in enumerate(axis.panels):
            ax = figure.axes[row * columns + column]
            ax.set_title(plain(title) if row == 0 else "")
            _variants(ax, comparison, axis, colours, f"{family}_p99_ms", points)
            _medians(ax, comparison, axis, colours, f"{family}_p50_ms", points)
            target_ms = target_of(comparison, family)
            if target_ms is not None:
                ax.axhline(target_ms, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
            ax.set_yscale("log")
            plain_ticks(ax.yaxis, crowded=300)
            _label(ax, axis, f"{family.upper()} (ms)")
            ax.label_outer()
    _finish(figure, axis)
    return to_svg(figure, f"Latency percentiles by {axis.label or 'workload'}")


def _grid(axis: Axis) -> tuple[int, int]:
    columns = min(len(axis.panels), _COLUMNS)
    return -(-len(axis.panels) // columns), columns


def _variants(
    ax: Axes, comparison: Comparison, axis: Axis, colours: Colours, metric: str, points: tuple[Point, ...]
) -> None:
    config = comparison.config
    for index, variant in enumerate(config.variants):
        dots = []
        for point in points:
            values = list(comparison.values(metric, variant, point.workload, point.rate).values())
            if values:
                x = point.x if axis.label else float(index)
                band = interval(values, config.confidence)
                hollow = still_growing(comparison, variant, point.workload, point.rate)
                dots.append(Dot(x, sum(values) / len(values), band, hollow))
        draw(ax, dots, colours[variant], variant, joined=axis.label is not None, share=metric.startswith("attainment"))


def _differences(ax: Axes, comparison: Comparison, axis: Axis, colours: Colours, points: tuple[Point, ...]) -> None:
    config = comparison.config
    cells = {(j.workload, j.rate, j.variant): j for j in comparison.judgements if j.metric == config.primary_metric}
    min_effect = max((judgement.min_effect for judgement in cells.values()), default=0.0)
    if min_effect:
        ax.axhspan(-min_effect, min_effect, color="#eef1f6", zorder=0, linewidth=0)
    for index, variant in enumerate(config.variants):
        dots = []
        for point in points:
            judgement = cells.get((point.workload, point.rate, variant))
            if judgement is not None and judgement.difference is not None:
                x = point.x if axis.label else float(index)
                difference = judgement.difference
                dots.append(Dot(x, difference.mean, difference, is_marked(comparison, judgement)))
        draw(ax, dots, colours[variant], variant, joined=axis.label is not None)


def _medians(
    ax: Axes, comparison: Comparison, axis: Axis, colours: Colours, metric: str, points: tuple[Point, ...]
) -> None:
    for index, variant in enumerate(comparison.config.variants):
        found = []
        for point in points:
            values = list(comparison.values(metric, variant, point.workload, point.rate).values())
            if values:
                found.append((point.x if axis.label else float(index), sum(values) / len(values)))
        if found:
            xs, means = zip(*found, strict=True)
            marker = "" if axis.label else "_"
            ax.plot(
                xs, means, color=colours[variant], linewidth=1.2, linestyle=(0, (3, 2)), marker=marker, markersize=12
            )


def _label(ax: Axes, axis: Axis, y_label: str) -> None:
    place = ax.get_subplotspec()
    ax.set_ylabel(y_label.replace(", ", ",\n") if place is None or place.is_first_col() else "")
    ax.set_xlabel(axis.label or "")
    xs = sorted({point.x for _, points in axis.panels for point in points})
    if len(xs) <= _MOST_TICKS:
        ax.set_xticks(xs, [f"{x:.3g}" for x in xs])
    if axis.label is None:
        ax.set_xticks([])
        ax.margins(x=0.3)


def _finish(figure: Figure, axis: Axis) -> None:
    for spare in figure.axes[len(axis.panels) :]:
        if not spare.has_data():
            spare.set_visible(False)
    legend(figure, figure.axes[0])
