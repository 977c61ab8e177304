"""Put facts and figures into the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.compare import Comparison
from experiments.config_file import to_yaml
from experiments.report import facts
from experiments.report.axis import axis_of, telling_point
from experiments.report.further import FIGURES, further_rows
from experiments.report.labels import metric_label
from experiments.report.template import templates, write_whole
from experiments.report.theme import Colours, palette
from experiments.settled import LEGEND, any_growing
from experiments.stats import Verdict

_FAMILIES = ("ttft", "tpot", "e2e")
_MANY = 8
"""Of more policies than this the page begins with a picture of all of them."""


NoteRow = tuple[str | tuple[Verdict, str], ...]
"""A cell is text, or a verdict with what it rests on."""


@dataclass(frozen=True)
class NoteTable:
    """A small table."""

    head: tuple[str, ...]
    rows: tuple[NoteRow, ...]


@dataclass(frozen=True)
class Note:
    """A paragraph, and perhaps a table, that a caller wants on the page, above the figures."""

    title: str
    text: str
    table: NoteTable | None = None


@dataclass(frozen=True)
class Part:
    """One comparison, with what the caller has to say about it."""

    comparison: Comparison
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Figure:
    """One drawing with what it shows."""

    title: str
    caption: str
    svg: str


def write_report(path: Path, first: Part, *more: Part, title: str | None = None) -> None:
    """Write the page (see :func:`render`), whole or not at all."""
    write_whole(path, render(first, *more, title=title))


def render(first: Part, *more: Part, title: str | None = None) -> str:
    """The page as text: the parts one below the other, a policy in the same colour in all of them.

    ``title``: of the whole page; None: the first comparison's. Equal parts give equal pages.
    """
    parts = (first, *more)
    comparisons = [part.comparison for part in parts]
    colours = palette(*(comparison.config for comparison in comparisons))
    outcomes = [comparison.outcome(case) for comparison in comparisons for case in comparison.cases]
    return (
        templates()
        .get_template("page.html.jinja")
        .render(
            title=title if title is not None else first.comparison.config.title,
            parts=[_content(part, colours) for part in parts],
            cost_models=facts.cost_models(outcomes),
            traces=facts.traces(outcomes),
            definitions=_definitions(comparisons),
            environment=facts.environment(outcomes),
        )
    )


def _content(part: Part, colours: Colours) -> dict[str, Any]:
    from markupsafe import Markup

    comparison, config = part.comparison, part.comparison.config
    rows = facts.verdict_rows(comparison, colours)
    return {
        "title": config.title,
        "baseline": config.baseline_name,
        "headline": facts.headline(comparison),
        "variants": facts.variant_facts(comparison, colours),
        "rows": rows,
        "marked": LEGEND if any(row.marked for row in rows) else "",
        "matrix": facts.verdict_matrix(comparison, rows),
        "metric": metric_label(config.primary_metric),
        "scope": _scope(comparison),
        "notes": part.notes,
        # Only the figures are markup; every name and text of a user's goes through escaping.
        "figures": [
            {"title": figure.title, "caption": figure.caption, "svg": Markup(figure.svg)}
            for figure in _figures(comparison, colours)
        ],
        "further": list(further_rows(comparison, telling_point(comparison))),
        "telling": facts.cell_text(comparison, telling_point(comparison)),
        "configuration": to_yaml(config),
        "confidence_pct": f"{100 * config.confidence:g}",
        "cell": lambda judgement: facts.cell_text(comparison, judgement),
    }


def _scope(comparison: Comparison) -> list[tuple[str, str]]:
    config = comparison.config
    rates = ", ".join(f"{rate:g}" for rate in sorted(config.rates)) or "as configured"
    unit = "requests/s, Poisson" if config.rate_key == "rate_rps" else "× recorded arrivals"
    pairing = {
        "blocks": f"block bootstrap of the trace, {config.pairing.length_s:g} s",
        "windows": f"windows of the trace, {config.pairing.length_s:g} s",
        "arrivals": "the run's own seed",
    }
    primary = config.metrics[config.primary_metric]
    effect = f"{100 * primary.min_effect:g} %" if primary.relative else f"{primary.min_effect:g}"
    return [
        ("Policies", str(len(config.variants))),
        ("Workloads", ", ".join(config.workloads)),
        ("Rates", f"{rates} {unit}" if config.rates else rates),
        ("Seeds", f"{len(config.seeds)} ({pairing[config.pairing.kind]})"),
        ("Horizon", facts.horizon_text(comparison)),
        ("SLO", facts.slo_text(comparison)),
        ("Judged by", f"{metric_label(config.primary_metric)}; a difference under {effect} does not matter"),
        ("Runs", str(len(comparison.outcomes))),
    ]


def _definitions(comparisons: Sequence[Comparison]) -> dict[str, str]:
    from reference_impl.metrics import definition

    judged = [metric for comparison in comparisons for metric in comparison.config.metrics]
    shown = [*judged, *(f"{family}_{s}_ms" for family in _FAMILIES for s in ("p50", "p99"))]
    known = {key for comparison in comparisons for outcome in comparison.outcomes.values() for key in outcome.metrics}
    further = [key for key in FIGURES if key in known]
    wanted = dict.fromkeys([*shown, "attainment", "goodput_rps", "offered_rps", "kv_use_mean", *further])
    return {key: text for key in wanted if (text := definition(key)) is not None}


def _figures(comparison: Comparison, colours: Colours) -> list[Figure]:
    from experiments.report.details import course, distributions
    from experiments.report.matrix import CAPTION, matrix
    from experiments.report.trends import differences, latencies, primary_metric

    axis, point, config = axis_of(comparison), telling_point(comparison), comparison.config
    metric, band = metric_label(config.primary_metric), f"{100 * config.confidence:g} % interval over seeds"
    target = " The dashed line is the usual target of 0.90." if config.primary_metric.startswith("attainment") else ""
    cell = facts.cell_text(comparison, point)
    against = f" against {axis.label}" if axis.label else ""
    hollow = " Hollow points: the load was still growing at the last arrival." if any_growing(comparison) else ""
    many = len(config.variants) > _MANY
    found = [
        (f"{len(config.variants)} policies at a glance", CAPTION, matrix(comparison) if many else None),
        (f"{metric}{against}", f"Mean and {band}.{target}{hollow}", primary_metric(comparison, axis, colours)),
        (
            f"Difference to {config.baseline_name}",
            f"Paired by seed, mean and {band}. Within the grey band a difference does not matter in practice.{hollow}",
            differences(comparison, axis, colours),
        ),
        (
            f"Latency{against}",
            "99th percentile with its interval, and dashed the median, of the requests that got that far; the grey line"
            f" is the SLO. Read it beside the attainment: requests that never got a token are not in it.{hollow}",
            latencies(comparison, axis, colours),
        ),
        (
            f"Distributions: {cell}",
            "Where the policies differ most. All seeds pooled; requests that got that far; the grey line is the SLO.",
            distributions(comparison, point, colours),
        ),
        (
            f"One run over time: {cell}",
            f"Seed {config.seeds[0]}. Sums over the fleet.",
            course(comparison, point, colours),
        ),
    ]
    return [Figure(title, caption, svg) for title, caption, svg in found if svg is not None]
