"""Hold the simulator against a real vLLM run: same requests, engine settings and hardware profile, nothing fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from experiments.manifest import environment
from experiments.validation.simulated import instance_of, simulated
from experiments.vllm_run import read_requests, read_settings

if TYPE_CHECKING:
    from numpy import float64, int32
    from numpy.typing import NDArray

    from experiments.validation.over_time import OverTime

    Floats = NDArray[float64]


class Comparison(TypedDict):
    """One figure of the real run and of its simulation."""

    metric: str
    statistic: str
    unit: str
    real: float
    simulated: float
    relative_error: float
    """Signed fraction of the real figure."""


@dataclass(frozen=True)
class Latencies:
    """Per request, counted from the moment it was queued."""

    ttft_s: Floats
    tpot_s: Floats
    """Only of requests with more than one token."""
    e2e_s: Floats

    @classmethod
    def of(cls, queued_s: Floats, first_token_s: Floats, last_token_s: Floats, tokens: NDArray[int32]) -> Latencies:
        """From moments and output lengths, arrays of equal length."""
        several = tokens > 1
        tpot_s = (last_token_s - first_token_s)[several] / (tokens[several] - 1)
        return cls(first_token_s - queued_s, tpot_s, last_token_s - queued_s)


@dataclass(frozen=True)
class Validated:
    """A recorded run against its simulation."""

    comparison: list[Comparison]
    over_time: OverTime | None
    """None where the folder has no ``timeseries.csv``."""


def validate_vllm_run(folder: str | Path) -> Validated:
    """Simulate the run in ``folder``; compare mean and P90 TTFT, mean TPOT and mean E2E, and its course.

    Where a second engine measured the machine's speed over the run (``speed.csv``), the simulated instance follows it.

    Times count from ``queued_ts``; percentiles are linear. Raises ConfigError for the run's files and ProfileError
    for its hardware profile, naming file, line or key and what is allowed.
    """
    from experiments.validation.over_time import over_time
    from experiments.validation.speed import SPEED, read_speed
    from reference_impl.metrics import per_request

    root = Path(folder)
    settings, record = read_settings(root / "meta.json"), read_requests(root / "requests.jsonl")
    real = Latencies.of(record.queued_s, record.first_token_s, record.last_token_s, record.output_tokens)
    instance = instance_of(root, settings)
    run = simulated(instance, record, read_speed(root / SPEED))
    table = per_request(run)
    latencies = Latencies.of(table.arrival_s, table.first_token_s, table.finish_s, record.output_tokens)
    course = over_time(root, record, instance, run) if (root / "timeseries.csv").exists() else None
    return Validated(compare(real, latencies), course)


def as_json(found: Validated) -> dict[str, Any]:
    """Ready for ``json.dumps``."""
    return {**run_facts(found), "environment": environment()}


def run_facts(found: Validated) -> dict[str, Any]:
    """What was found of one run; ``over_time`` is null where there is no time series."""
    from experiments.validation.figure import facts

    return {"comparison": found.comparison, "over_time": facts(found.over_time) if found.over_time else None}


def as_text(found: Validated) -> str:
    """Two aligned tables: figures over all requests, then the run's course."""
    lines = [f"{'figure':<12} {'real':>10} {'simulated':>10} unit  error"]
    for row in found.comparison:
        name = f"{row['metric']} {row['statistic']}"
        figures = f"{row['real']:>10.4g} {row['simulated']:>10.4g} {row['unit']:<4} {row['relative_error']:+.2%}"
        lines.append(f"{name:<12} {figures}")
    if found.over_time is not None:
        lines += ["", f"{'over time':<12} {'real':>10} {'simulated':>10} {'|diff|':>8} {'max':>8} corr.  lag (s)"]
        for course in found.over_time.agreement:
            means = f"{course['mean_real']:>10.4g} {course['mean_simulated']:>10.4g}"
            apart = f"{course['mean_absolute_difference']:>8.3g} {course['largest_difference']:>8.3g}"
            shape = f"{course['correlation']:.4f} {course['lag_s']:+.2f}"
            lines.append(f"{course['series']:<12} {means} {apart} {shape}")
        lines.append(f"Real KV use from {found.over_time.kv_source}; pool: {found.over_time.kv_blocks} blocks.")
    return "\n".join(lines)


def compare(real: Latencies, simulated: Latencies) -> list[Comparison]:
    """The four figures. Means, and numpy's default percentile."""
    return [
        _compared("ttft", "mean", "s", real.ttft_s, simulated.ttft_s),
        _compared("ttft", "p90", "s", real.ttft_s, simulated.ttft_s),
        _compared("tpot", "mean", "ms", 1e3 * real.tpot_s, 1e3 * simulated.tpot_s),
        _compared("e2e", "mean", "s", real.e2e_s, simulated.e2e_s),
    ]


def _compared(metric: str, statistic: str, unit: str, real: Floats, simulated: Floats) -> Comparison:
    import numpy as np

    def reduce(values: Floats) -> float:
        return float(np.mean(values) if statistic == "mean" else np.percentile(values, 90))

    measured, modelled = reduce(real), reduce(simulated)
    error = modelled / measured - 1
    return Comparison(
        metric=metric, statistic=statistic, unit=unit, real=measured, simulated=modelled, relative_error=error
    )
