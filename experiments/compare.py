"""Which policy is better, by how much, and how sure: paired over seeds."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cases.model import Case, Outcome, Runner
from experiments.cases.pool import Progress, run_cases
from experiments.cases.scratch import scratch_folder
from experiments.cases.simulated import Simulated
from experiments.cases.store import CaseStore
from experiments.cases.traffic import RateKey
from experiments.compare_config import CompareConfig, expand
from experiments.config_base import ConfigError
from experiments.preflight import check_gate, check_runs
from experiments.stats import Interval, Verdict, interval, judge, paired_d


@dataclass(frozen=True)
class Judgement:
    """One variant against the baseline in one cell (workload, rate), by one metric, over all seeds."""

    metric: str
    workload: str
    rate: float | None
    rate_key: RateKey | None
    """What the rate sets; None without rates."""
    variant: str
    baseline: str
    variant_mean: float | None
    baseline_mean: float | None
    difference: Interval | None
    """Of variant - baseline; None where fewer than two seeds have the metric on both sides."""
    relative_difference: float | None
    """Mean difference as a share of the baseline's mean over the same seeds; None: there is none, or it is zero."""
    paired_d: float | None
    """Mean difference in standard deviations of the differences over seeds, see :func:`experiments.stats.paired_d`."""
    min_effect: float
    """In the metric's unit."""
    verdict: Verdict
    missing_seeds: tuple[int, ...]
    """Seeds without the metric on either side; they are left out of the difference."""


@dataclass(frozen=True)
class Comparison:
    """All that a report needs."""

    config: CompareConfig
    cases: tuple[Case, ...]
    outcomes: Mapping[str, Outcome]
    """By case key."""
    judgements: tuple[Judgement, ...]

    def outcome(self, case: Case) -> Outcome:
        """What a case gave."""
        return self.outcomes[case.key]

    def values(self, metric: str, variant: str, workload: str, rate: float | None) -> dict[int, float]:
        """Seed -> value, of the seeds that have it."""
        return {
            case.seed: value
            for case in self.cases
            if (case.variant, case.workload, case.rate) == (variant, workload, rate)
            and (value := self.outcome(case).metrics.get(metric)) is not None
        }

    def to_json(self) -> dict[str, Any]:
        """Configuration, verdicts and every case's metrics."""
        return {
            "config": self.config.model_dump(mode="json"),
            "verdicts": [dataclasses.asdict(judgement) for judgement in self.judgements],
            "cases": [_case_json(case, self.outcome(case)) for case in self.cases],
        }


def compare(
    config: CompareConfig,
    out: Path | None = None,
    *,
    runner: Runner | None = None,
    processes: int = 1,
    progress: Progress | None = None,
    source: str = "comparison",
) -> Comparison:
    """Run what is missing under ``out/cases`` (None: keep nothing) and judge. Raises ConfigError before any run.

    Everything that the configuration names is looked up first: metrics, policies, hardware, models, traces.
    Interrupted or extended comparisons continue where they are: a case is known by its resolved configuration.
    """
    cases = expand(config, source)
    if runner is None:
        check_runs(config, cases, source)
    store = CaseStore(out / "cases") if out is not None else None
    with scratch_folder(out) if out is not None else contextlib.nullcontext() as scratch:
        run = runner if runner is not None else Simulated(scratch)
        outcomes = run_cases(cases, run, store, processes=processes, progress=progress)
    return judged(config, cases, outcomes)


def judged(config: CompareConfig, cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> Comparison:
    """The comparison of finished cases."""
    bare = Comparison(config, tuple(cases), outcomes, ())
    judgements = [
        _judgement(bare, metric, workload, rate, variant)
        for metric in config.metrics
        for workload in config.workloads
        for rate in config.rates or (None,)
        for variant in config.variants
        if variant != config.baseline_name
    ]
    return dataclasses.replace(bare, judgements=tuple(judgements))


def gate(comparison: Comparison) -> list[Judgement]:
    """The regressions by the gate's metrics: a CI fails if there is one.

    A cell that cannot be judged because the variant lacks the figure counts as a regression. Raises ConfigError where
    nothing can be judged at all: fewer than two seeds, or a metric that the baseline never has.
    """
    config = comparison.config
    check_gate(config)
    watched = [judgement for judgement in comparison.judgements if judgement.metric in config.gate_metrics]
    for judgement in watched:
        if judgement.baseline_mean is None:
            raise ConfigError(
                f"gate: the baseline {judgement.baseline!r} has no {judgement.metric} ({cell_name(judgement)})"
            )
    return [judgement for judgement in watched if judgement.verdict == "worse" or judgement.difference is None]


def describe(judgement: Judgement) -> str:
    """One line for a person."""
    found = judgement.difference
    if found is None:
        said = "cannot be judged: fewer than two seeds have it on both sides"
    else:
        relative = judgement.relative_difference
        share = "" if relative is None else f" ({relative:+.2%})"
        size = "" if judgement.paired_d is None else f", d {judgement.paired_d:+.2f}"
        said = f"{found.mean:+.4g}{share} [{found.low:+.4g}, {found.high:+.4g}] over {found.seeds} seeds{size}"
    return f"{judgement.variant} against {judgement.baseline}, {cell_name(judgement)}: {judgement.metric} {said}"


def cell_name(judgement: Judgement) -> str:
    """Workload and rate in words."""
    if judgement.rate is None:
        return judgement.workload
    unit = "requests/s" if judgement.rate_key == "rate_rps" else "x the recorded rate"
    return f"{judgement.workload} at {judgement.rate:g} {unit}"


def _judgement(found: Comparison, metric: str, workload: str, rate: float | None, variant: str) -> Judgement:
    config = found.config
    ours = found.values(metric, variant, workload, rate)
    theirs = found.values(metric, config.baseline_name, workload, rate)
    paired = [seed for seed in config.seeds if seed in ours and seed in theirs]
    differences = [ours[seed] - theirs[seed] for seed in paired]
    difference = interval(differences, config.confidence)
    reference = _mean([theirs[seed] for seed in paired])
    baseline_mean = _mean(list(theirs.values()))
    wanted = config.metrics[metric]
    min_effect = wanted.min_effect * abs(baseline_mean or 0.0) if wanted.relative else wanted.min_effect
    return Judgement(
        metric=metric,
        workload=workload,
        rate=rate,
        rate_key=config.rate_key,
        variant=variant,
        baseline=config.baseline_name,
        variant_mean=_mean(list(ours.values())),
        baseline_mean=baseline_mean,
        difference=difference,
        relative_difference=difference.mean / abs(reference) if difference is not None and reference else None,
        paired_d=paired_d(differences),
        min_effect=min_effect,
        verdict=judge(difference, min_effect, config.higher_is_better(metric)),
        missing_seeds=tuple(seed for seed in config.seeds if seed not in paired),
    )


def _case_json(case: Case, outcome: Outcome) -> dict[str, Any]:
    told = {"variant": case.variant, "workload": case.workload, "rate": case.rate, "seed": case.seed, "key": case.key}
    return {**told, "metrics": dict(outcome.metrics)}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
