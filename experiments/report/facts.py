"""What the page states in words and tables. Plain values; the template writes them down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.cases.model import Outcome
from experiments.compare import Comparison, Judgement
from experiments.report.axis import Point
from experiments.report.labels import metric_label, number
from experiments.report.theme import Colours
from experiments.settled import is_marked
from experiments.stats import Verdict

_VERDICTS: tuple[Verdict, ...] = ("better", "worse", "no difference", "inconclusive")


@dataclass(frozen=True)
class VariantFact:
    """One compared policy."""

    name: str
    colour: str
    is_baseline: bool
    settings: tuple[tuple[str, str], ...]
    """What it changes: dotted key, value."""
    verdicts: Mapping[Verdict, int]
    """Cells by verdict, on the primary metric."""


@dataclass(frozen=True)
class VerdictRow:
    """One line of the verdict table; numbers ready to read, the drawing's numbers in percent of its width."""

    judgement: Judgement
    colour: str
    metric: str
    marked: bool
    """The load was still growing at the last arrival, on either side."""
    baseline_mean: str
    variant_mean: str
    difference: str
    relative: str
    """Of the baseline's mean; empty where there is none."""
    paired_d: str
    interval: str
    low_pct: float
    mean_pct: float
    high_pct: float


def variant_facts(comparison: Comparison, colours: Colours) -> list[VariantFact]:
    """In the configuration's order."""
    config = comparison.config
    facts = []
    for name, overrides in config.variants.items():
        verdicts: dict[Verdict, int] = dict.fromkeys(_VERDICTS, 0)
        for judgement in comparison.judgements:
            if judgement.variant == name and judgement.metric == config.primary_metric:
                verdicts[judgement.verdict] += 1
        settings = tuple(flatten(overrides))
        facts.append(VariantFact(name, colours[name], name == config.baseline_name, settings, verdicts))
    return facts


def verdict_rows(comparison: Comparison, colours: Colours) -> list[VerdictRow]:
    """All judgements; the little drawings of one metric share a scale that is centred on zero."""
    return [_row(comparison, judgement, colours) for judgement in comparison.judgements]


def verdict_matrix(comparison: Comparison, rows: Sequence[VerdictRow]) -> list[tuple[str, str, list[VerdictRow]]]:
    """The primary metric at a glance: per cell of traffic its name, the baseline's mean, a row per other variant."""
    config = comparison.config
    cells: dict[tuple[str, float | None], list[VerdictRow]] = {}
    for row in rows:
        if row.judgement.metric == config.primary_metric:
            cells.setdefault((row.judgement.workload, row.judgement.rate), []).append(row)
    return [(cell_text(comparison, found[0].judgement), found[0].baseline_mean, found) for found in cells.values()]


def headline(comparison: Comparison) -> list[str]:
    """The answer, one sentence per policy."""
    config = comparison.config
    sentences = []
    for name in config.variants:
        if name == config.baseline_name:
            continue
        found = [j for j in comparison.judgements if j.variant == name and j.metric == config.primary_metric]
        counts = Counter(judgement.verdict for judgement in found)
        said = [f"{verdict} at {counts[verdict]}" for verdict in _VERDICTS if counts[verdict]]
        sentences.append(f"{name}: {', '.join(said)} of {len(found)} {'point' if len(found) == 1 else 'points'}.")
    return sentences


def cost_models(outcomes: Iterable[Outcome]) -> dict[str, list[str]]:
    """Name -> where its numbers come from and its error, of every cost model that a run used.

    Several texts where runs assumed different things of it.
    """
    found: dict[str, list[str]] = {}
    for outcome in outcomes:
        for name, text in dict(outcome.provenance.get("cost_models", {})).items():
            texts = found.setdefault(str(name), [])
            if str(text) not in texts:
                texts.append(str(text))
    return found


def traces(outcomes: Iterable[Outcome]) -> list[dict[str, str]]:
    """Provenance of the traces, each once, without what differs from seed to seed."""
    found: dict[str, dict[str, str]] = {}
    for outcome in outcomes:
        trace = {str(key): str(value) for key, value in dict(outcome.provenance.get("trace", {})).items()}
        found.setdefault(trace.get("name", ""), trace)
    return [trace for trace in found.values() if trace]


def environment(outcomes: Iterable[Outcome]) -> dict[str, str]:
    """Versions and platform of the first run; ``several`` where runs differ."""
    keys = ("semiflow", "git_commit", "python", "platform", "packages")
    seen: dict[str, set[str]] = {}
    for outcome in outcomes:
        for key in keys:
            if key in outcome.provenance:
                seen.setdefault(key, set()).add(_words(outcome.provenance[key]))
    return {
        key: values.pop() if len(values) == 1 else "several: " + "; ".join(sorted(values))
        for key, values in seen.items()
    }


def target_of(comparison: Comparison, family: str) -> float | None:
    """The SLO's target for ``ttft`` or ``tpot`` in ms; None where there is none or the runs do not share one."""
    targets = {getattr(case.config.slo, f"{family}_s", None) for case in comparison.cases}
    target_s = targets.pop() if len(targets) == 1 else None
    return None if target_s is None else target_s * 1e3


def horizon_text(comparison: Comparison) -> str:
    """How long the runs are: requests, and seconds from the first arrival to the last."""
    told = [comparison.outcome(case).metrics for case in comparison.cases]
    seen = [(m["arrived"], m["arrived"] / m["offered_rps"]) for m in told if m.get("arrived") and m.get("offered_rps")]
    if not seen:
        return "not stated by the runs"
    requests, spans_s = ([pair[place] for pair in seen] for place in (0, 1))
    warmup = [m["warmup_requests"] for m in told if "warmup_requests" in m]
    trimmed = comparison.config.primary_metric.endswith("_trimmed") and warmup
    left_out = f" ({_span(warmup)} of them warm-up)" if trimmed else ""
    return f"{_span(requests)} requests per run{left_out}, {_span(spans_s)} s of arrivals"


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return low if low == high else f"{low} to {high}"


def slo_text(comparison: Comparison) -> str:
    """The targets in words."""
    parts = [
        f"{family.upper()} ≤ {number(target)} ms"
        for family in ("ttft", "tpot")
        if (target := target_of(comparison, family)) is not None
    ]
    return " and ".join(parts) if parts else "none, or not the same for all runs"


def cell_text(comparison: Comparison, point: Point | Judgement) -> str:
    """Name of a cell."""
    if point.rate is None:
        return point.workload
    where = f"{point.workload}, " if len(comparison.config.workloads) > 1 else ""
    unit = "requests/s" if comparison.config.rate_key == "rate_rps" else "× recorded rate"
    return f"{where}{point.rate:g} {unit}"


def flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """``{"a": {"b": 1}}`` as ``a.b``, ``1``."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _words(value)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_words(item) for item in value)
    return str(value)


def _reach(comparison: Comparison, metric: str) -> float:
    intervals = [j.difference for j in comparison.judgements if j.metric == metric and j.difference is not None]
    return max((max(abs(found.low), abs(found.high)) for found in intervals), default=0.0) or 1.0


def _row(comparison: Comparison, judgement: Judgement, colours: Colours) -> VerdictRow:
    found, reach = judgement.difference, _reach(comparison, judgement.metric)
    low, mean, high = (found.low, found.mean, found.high) if found else (0.0, 0.0, 0.0)
    return VerdictRow(
        judgement=judgement,
        colour=colours[judgement.variant],
        metric=metric_label(judgement.metric),
        marked=is_marked(comparison, judgement),
        baseline_mean=number(judgement.baseline_mean),
        variant_mean=number(judgement.variant_mean),
        difference=number(found.mean, signed=True) if found else "–",
        relative="" if (share := judgement.relative_difference) is None else f"{share:+.1%}".replace("-", "−"),
        paired_d=number(judgement.paired_d, signed=True),
        interval=f"[{number(low, signed=True)}, {number(high, signed=True)}]" if found else "fewer than two seeds",
        low_pct=50 + 46 * low / reach,
        mean_pct=50 + 46 * mean / reach,
        high_pct=50 + 46 * high / reach,
    )
