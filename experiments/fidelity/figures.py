"""Live and simulated side by side: every policy's means, and every figure of every run against the diagonal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from experiments.fidelity.measures import FIGURES, MEANS
from experiments.fidelity.study import Study
from experiments.fidelity.table import name
from experiments.fidelity.verdict import Compared
from experiments.report.labels import plain
from experiments.report.theme import COLOURS, GRID, INK, MUTED, legend, panels, plain_ticks, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE_INCHES = 0.34


def by_policy(study: Study, trace: str) -> str:
    """One panel per mean; a line per pair of policies: each live run a dot, their mean a bar, the simulation a ring."""
    rows = [row for row in study.rows if row.trace == trace]
    lines = list(dict.fromkeys((row.dispatch, row.batch) for row in rows))
    figure = panels(1, len(MEANS), 1.1 + _LINE_INCHES * len(lines), sharey="all")
    for ax, wanted in zip(figure.axes, MEANS, strict=True):
        shown = {(row.dispatch, row.batch): row for row in rows if row.figure == wanted}
        _dots(ax, [shown[line] for line in lines])
        ax.set_xlabel(name(wanted))
        ax.set_xlim(left=0)
    figure.axes[0].set_yticks(range(len(lines)), [plain(f"{dispatch} | {batch}") for dispatch, batch in lines])
    figure.axes[0].invert_yaxis()
    legend(figure, figure.axes[0])
    return to_svg(figure, f"Live and simulated means, {trace}")


def diagonal(study: Study) -> str:
    """Simulated against live, one panel per family of figures, with the demanded margin of its mean."""
    bars = study.config.bars
    margins = {"ttft": bars.ttft, "tpot": bars.tpot, "e2e": bars.e2e}
    figure = panels(1, len(margins), 3.4)
    for ax, (family, margin) in zip(figure.axes, margins.items(), strict=True):
        figures = [wanted for wanted in FIGURES if wanted.startswith(family)]
        _against(ax, {wanted: [row for row in study.rows if row.figure == wanted] for wanted in figures}, margin)
        ax.set_xlabel(f"{family.upper()} live (ms)")
        ax.set_ylabel("simulated (ms)")
    legend(figure, figure.axes[0])
    return to_svg(figure, "Simulated against live figures")


def _dots(ax: Axes, rows: Sequence[Compared]) -> None:
    places = range(len(rows))
    for place, row in zip(places, rows, strict=True):
        ax.plot(row.live, [place] * len(row.live), "o", color=COLOURS[0], markersize=4, alpha=0.6)
    means = [row.live_mean for row in rows]
    ax.plot(means, places, "|", color=COLOURS[0], markersize=15, markeredgewidth=2.2, label="live: runs and their mean")
    ax.plot(
        *([row.simulated for row in rows], places, "o"),
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=COLOURS[1],
        markeredgewidth=1.8,
        label="simulated",
    )


def _against(ax: Axes, rows: Mapping[str, Sequence[Compared]], margin: float) -> None:
    live = [row.live_mean for members in rows.values() for row in members]
    ends = min(live) / 1.3, max(live) * 1.3
    ax.fill_between(ends, [end * (1 - margin) for end in ends], [end * (1 + margin) for end in ends], color=GRID)
    ax.plot(ends, ends, color=MUTED, linewidth=0.9)
    for (figure, members), marker in zip(rows.items(), "osD", strict=True):
        ax.plot(
            [row.live_mean for row in members],
            [row.simulated for row in members],
            marker,
            color=COLOURS[0] if "mean" in figure else INK,
            markerfacecolor=COLOURS[0] if "mean" in figure else "none",
            markersize=5,
            label=figure.split("_")[1],
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_ticks(ax.xaxis, crowded=60)
    plain_ticks(ax.yaxis, crowded=60)
