"""A table of what the figures do not draw: SLO classes, tenants, fairness, work in vain, device time, cost."""

from __future__ import annotations

from collections.abc import Iterator

from experiments.compare import Comparison
from experiments.report.axis import Point
from experiments.report.labels import metric_label, number

FIGURES = (
    *("goodput_rps", "fluidity_mean", "fluidity_attainment", "jain_service", "service_gap"),
    *("rejected", "rejected_prompt_tokens", "preemptions", "recomputed_tokens", "device_held_s", "device_busy_s"),
    *("cost_per_million_output_tokens", "cost_per_thousand_good_requests"),
)
_OF_GROUPS = ("attainment", "goodput_rps", "ttft_p99_ms")


def further_rows(comparison: Comparison, point: Point) -> Iterator[tuple[str, list[str]]]:
    """Name of a figure and its mean over seeds for each variant, of those that any variant has."""
    from reference_impl.metrics import group_of

    known = dict.fromkeys(key for outcome in comparison.outcomes.values() for key in outcome.metrics)
    groups = [key for key in known if (found := group_of(key)) is not None and found[0] in _OF_GROUPS]
    for key in (*FIGURES, *groups):
        values = [_mean(comparison, key, variant, point) for variant in comparison.config.variants]
        if any(value is not None for value in values):
            yield metric_label(key), [number(value) for value in values]


def _mean(comparison: Comparison, key: str, variant: str, point: Point) -> float | None:
    values = list(comparison.values(key, variant, point.workload, point.rate).values())
    return sum(values) / len(values) if values else None
