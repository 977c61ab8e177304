"""What ``semiflow compare`` reads: a base run, the variants of it, and over which traffic they are compared.

Overrides are nested like :class:`experiments.config.RunConfig` and win in this order: base, workload, variant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from experiments.cases.model import Case
from experiments.cases.traffic import PairingConfig, RateKey, with_traffic
from experiments.config import RunConfig
from experiments.config_base import ConfigError, NonNegative, Rate, Seed, StrictModel
from experiments.config_file import parse

Overrides = dict[str, Any]
_HIGHER = (
    "attainment",
    "goodput",
    "throughput",
    "completed",
    "output_tokens",
    "total_tokens",
    "prefix_hit",
    "fluidity",
    "jain",
)
_LOWER = (
    "ttft_",
    "tpot_",
    "itl_",
    "e2e_",
    "rejected",
    "unfinished",
    "preemptions",
    "makespan",
    "recomputed",
    "service_gap",
    "cost",
)


def _no_overrides() -> dict[str, Overrides]:
    return {"default": {}}


class MetricConfig(StrictModel):
    """One figure that variants are judged by."""

    min_effect: NonNegative = 0.0
    """A smaller difference does not matter in practice; in the metric's unit, or a share of the baseline's mean."""
    relative: bool = False
    """``min_effect`` is a share of the baseline's mean (0.05: five percent)."""
    better: Literal["higher", "lower"] | None = None
    """None: known for the usual figures."""


class SweepConfig(StrictModel):
    """Reads the workloads as points of one axis, for instance an assumption of the cost model that is swept."""

    label: str
    """Axis title, unit included."""
    values: Annotated[dict[str, float], Field(min_length=2)]
    """Workload name -> its place on the axis."""


class CompareConfig(StrictModel):
    """Policies x workloads x rates x seeds."""

    title: str = "Policy comparison"
    base: Overrides = Field(default_factory=dict)
    variants: Annotated[dict[str, Overrides], Field(min_length=2)]
    workloads: dict[str, Overrides] = Field(default_factory=_no_overrides, min_length=1)
    rates: Annotated[tuple[Rate, ...], Field(strict=False)] = ()
    """Empty: the arrivals as configured."""
    rate_key: RateKey | None = None
    """What a rate sets: ``workload.rate_scale`` (recorded arrivals, faster) or ``workload.rate_rps`` (Poisson).
    Needed with ``rates``: a 4 that means four times the traffic is not a 4 that means four requests per second."""
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = (0, 1, 2, 3, 4)
    pairing: PairingConfig = PairingConfig()
    baseline: str | None = None
    """Variant that the others are compared with; None: the first."""
    metrics: dict[str, MetricConfig] = Field(
        default_factory=lambda: {"attainment": MetricConfig(min_effect=0.01)}, min_length=1
    )
    """The first is the one that headlines speak of."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    gate: Annotated[tuple[str, ...] | None, Field(strict=False)] = None
    """Metrics whose regression fails ``--gate``; None: the first metric."""
    sweep: SweepConfig | None = None

    @property
    def baseline_name(self) -> str:
        """The variant that the others are compared with."""
        return self.baseline if self.baseline is not None else next(iter(self.variants))

    @property
    def primary_metric(self) -> str:
        """The metric that headlines speak of."""
        return next(iter(self.metrics))

    @property
    def gate_metrics(self) -> tuple[str, ...]:
        """The metrics whose regression fails the gate."""
        return self.gate if self.gate is not None else (self.primary_metric,)

    def policy_of(self, variant: str) -> str:
        """What a variant is called across comparisons: its policies, where it sets nothing else; else its name."""
        overrides = self.variants[variant]
        policies = overrides.get("policies")
        if set(overrides) != {"policies"} or not isinstance(policies, Mapping) or not policies:
            return variant
        return " + ".join(str(text) for text in policies.values())

    def with_min_effect(self, min_effect: float, relative: bool) -> Self:
        """The same, with another smallest effect of the gate's metrics."""
        changed = {"min_effect": min_effect, "relative": relative}
        gated = {name: self.metrics[name].model_copy(update=changed) for name in self.gate_metrics}
        return self.model_copy(update={"metrics": {**self.metrics, **gated}})

    def higher_is_better(self, metric: str) -> bool:
        """Direction of a metric."""
        stated = self.metrics[metric].better
        return stated == "higher" if stated is not None else metric.startswith(_HIGHER)

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        _known("baseline", [self.baseline_name], self.variants)
        _known("gate", self.gate_metrics, self.metrics)
        if self.sweep is not None:
            _known("sweep.values", self.sweep.values, self.workloads)
        if self.rates and self.rate_key is None:
            raise ValueError(
                "rates: say what they set: `rate_key: rate_rps` (Poisson arrivals, requests per second) or "
                "`rate_key: rate_scale` (the recorded arrivals, so many times faster)"
            )
        for name, metric in self.metrics.items():
            if metric.better is None and not name.startswith((*_HIGHER, *_LOWER)):
                raise ValueError(f"metrics.{name}: say which way is better, `better: higher` or `better: lower`")
        for name, values in (("seeds", self.seeds), ("rates", self.rates)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: every value may stand once, got {list(values)}")
        return self


def expand(config: CompareConfig, source: str = "comparison") -> list[Case]:
    """Every case, by workload, rate, variant, seed. Raises ConfigError naming the variant and key that are wrong."""
    return [
        Case(variant, workload, rate, seed, _seeded(run, config, rate, seed, source))
        for variant, workload, run in _runs(config, source)
        for rate in config.rates or (None,)
        for seed in config.seeds
    ]


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one; a later layer wins, lists are replaced whole."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            both = isinstance(old, Mapping) and isinstance(value, Mapping)
            merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]  # both says so
    return merged


def _runs(config: CompareConfig, source: str) -> Iterator[tuple[str, str, RunConfig]]:
    for workload, traffic in config.workloads.items():
        for variant, overrides in config.variants.items():
            content = merge(config.base, traffic, overrides)
            yield variant, workload, parse(RunConfig, content, f"{source}: variant {variant!r}, workload {workload!r}")


def _seeded(run: RunConfig, config: CompareConfig, rate: float | None, seed: int, source: str) -> RunConfig:
    try:
        return with_traffic(run, rate=rate, rate_key=config.rate_key, seed=seed, pairing=config.pairing)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _known(key: str, names: Any, allowed: Mapping[str, Any]) -> None:
    for name in names:
        if name not in allowed:
            close = get_close_matches(str(name), list(allowed), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{key}: {name!r} is not there; {hint}allowed: {', '.join(allowed)}")
