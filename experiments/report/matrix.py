"""Many policies at a glance: one row per policy, one column per cell of traffic, the baseline's distance as colour."""

from __future__ import annotations

from math import log2
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.compare import Comparison, Judgement
from experiments.compare_config import CompareConfig
from experiments.report.facts import cell_text
from experiments.report.labels import metric_label, number, plain
from experiments.report.theme import INK, MUTED, panels, save, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Means over seeds; the first row is the baseline, the others are ordered by their mean gain on the first metric."
    " Blue is better than the baseline and red worse, darkest at four times (of a share, at half); grey figures are no"
    " verdict."
)
_ROW_INCHES = 0.26
_REACH = 2.0
"""Doublings (or, for a share, quarters) at which the colour is full."""
_SAID = ("better", "worse")
Rows = dict[str, list[Judgement]]
"""Variant -> its judgement in each cell of traffic."""


def matrix(comparison: Comparison) -> str:
    """The picture as an ``<svg>`` element."""
    config = comparison.config
    return to_svg(_draw(comparison), f"{metric_label(config.primary_metric)} of every policy in every cell")


def save_matrix(comparison: Comparison, path: Path) -> None:
    """Write the picture to ``path`` (.png or .svg). Equal comparisons give equal pictures."""
    save(_draw(comparison), path, comparison.config.title)


def _draw(comparison: Comparison) -> Figure:
    config = comparison.config
    by_metric = {metric: _rows(comparison, metric) for metric in config.metrics}
    order = _ranking(config, by_metric[config.primary_metric])
    figure = panels(1, len(by_metric), 1.6 + _ROW_INCHES * (len(order) + 1), sharey="all")
    figure.suptitle(plain(config.title), x=0.01, ha="left")
    for ax, (metric, rows) in zip(figure.axes, by_metric.items(), strict=True):
        _panel(ax, comparison, metric, rows, order)
    names = [f"{config.baseline_name} (baseline)", *order]
    figure.axes[0].set_yticks([y + 0.5 for y in range(len(names))], [plain(name) for name in names])
    figure.axes[0].invert_yaxis()
    return figure


def _rows(comparison: Comparison, metric: str) -> Rows:
    rows: Rows = {}
    for judgement in comparison.judgements:
        if judgement.metric == metric:
            rows.setdefault(judgement.variant, []).append(judgement)
    return rows


def _ranking(config: CompareConfig, rows: Rows) -> list[str]:
    """Variants by their mean gain over the baseline, best first."""
    gains = {variant: [_gain(config, judgement) for judgement in found] for variant, found in rows.items()}
    return sorted(gains, key=lambda variant: -sum(gains[variant]) / len(gains[variant]))


def _gain(config: CompareConfig, judgement: Judgement) -> float:
    """How much better than the baseline: doublings, or of a share quarters; 0 where one of them has no figure."""
    ours, theirs = judgement.variant_mean, judgement.baseline_mean
    if ours is None or theirs is None:
        return 0.0
    if judgement.metric.startswith("attainment"):
        return 4.0 * (ours - theirs)
    distance = log2(ours / theirs) if ours > 0 and theirs > 0 else 0.0
    return distance if config.higher_is_better(judgement.metric) else -distance


def _panel(ax: Axes, comparison: Comparison, metric: str, rows: Rows, order: list[str]) -> None:
    config, cells = comparison.config, rows[order[0]]
    gains = [[0.0] * len(cells), *([_gain(config, judgement) for judgement in rows[variant]] for variant in order)]
    ax.grid(False)
    ax.pcolormesh(range(len(cells) + 1), range(len(gains) + 1), gains, cmap="RdBu", vmin=-_REACH, vmax=_REACH)
    ax.set_title(plain(metric_label(metric)))
    names = [plain(cell_text(comparison, cell)) for cell in cells]
    ax.set_xticks([x + 0.5 for x in range(len(cells))], names, rotation=30, ha="right")
    ax.tick_params(axis="x", length=0)
    for x, cell in enumerate(cells):
        _write(ax, x, 0, number(cell.baseline_mean), INK)
        for y, variant in enumerate(order, start=1):
            judgement = rows[variant][x]
            on_dark = abs(gains[y][x]) > 0.7 * _REACH
            colour = "white" if on_dark else INK if judgement.verdict in _SAID else MUTED
            _write(ax, x, y, number(judgement.variant_mean), colour)


def _write(ax: Axes, x: int, y: int, text: str, colour: str) -> None:
    ax.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7, color=colour)
