"""Figures of one cell: distributions of the latencies, and the course of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.cases.model import Case
from experiments.compare import Comparison
from experiments.report.axis import Point
from experiments.report.facts import target_of
from experiments.report.labels import plain
from experiments.report.theme import MUTED, Colours, legend, panels, plain_ticks, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES = (("ttft_ms", "TTFT (ms)"), ("tpot_ms", "TPOT (ms)"), ("e2e_ms", "E2E (ms)"))
_COLUMNS = (("running", "running requests"), ("waiting", "waiting requests"), ("kv_use", "KV use"))


def distributions(comparison: Comparison, point: Point, colours: Colours) -> str | None:
    """Cumulative distributions of TTFT, TPOT and E2E, seeds pooled; None where the cases keep no curves."""
    shown = [(key, label) for key, label in _CURVES if any(key in o.curves for o in comparison.outcomes.values())]
    if not shown:
        return None
    figure = panels(1, len(shown), 3.1, sharey="all")
    for ax, (key, label) in zip(figure.axes, shown, strict=True):
        _cdf(ax, comparison, point, colours, key)
        target_ms = target_of(comparison, key.removesuffix("_ms"))
        if target_ms is not None:
            ax.axvline(target_ms, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.set_xlabel(label)
        ax.set_ylabel("share of requests")
    legend(figure, figure.axes[0])
    return to_svg(figure, f"Distributions of latency, {point.workload}")


def course(comparison: Comparison, point: Point, colours: Colours) -> str | None:
    """Running and waiting requests and KV use over time, of each variant's run with the first seed."""
    first = comparison.config.seeds[0]
    cases = [case for case in _cell(comparison, point) if case.seed == first]
    timelines = {case.variant: comparison.outcome(case).timeline for case in cases}
    shown = [(key, label) for key, label in _COLUMNS if any(key in found for found in timelines.values())]
    if not shown:
        return None
    figure = panels(len(shown), 1, 0.5 + 1.55 * len(shown), sharex="col")
    for ax, (key, label) in zip(figure.axes, shown, strict=True):
        for variant, found in timelines.items():
            if key in found:
                ax.plot(found["time_s"], found[key], color=colours[variant], label=plain(variant), linewidth=1.3)
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
        ax.margins(x=0)
    figure.axes[-1].set_xlabel("seconds since the first arrival")
    legend(figure, figure.axes[0])
    return to_svg(figure, f"Course of a run, {point.workload}")


def _cdf(ax: Axes, comparison: Comparison, point: Point, colours: Colours, key: str) -> None:
    import seaborn as sns

    for variant in comparison.config.variants:
        pooled = [
            value
            for case in _cell(comparison, point)
            if case.variant == variant
            for value in comparison.outcome(case).curves.get(key, ())
        ]
        if pooled:
            sns.ecdfplot(x=pooled, ax=ax, color=colours[variant], label=plain(variant))
    ax.set_xscale("log")
    plain_ticks(ax.xaxis, crowded=60)


def _cell(comparison: Comparison, point: Point) -> list[Case]:
    return [case for case in comparison.cases if (case.workload, case.rate) == (point.workload, point.rate)]
