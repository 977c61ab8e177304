"""Running and waiting requests and KV use of a vLLM run, recorded and simulated, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from experiments.validation.timeseries import read_timeseries
from experiments.vllm_run import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy import float64
    from numpy.typing import NDArray

    from reference_impl.core.spec import InstanceSpec
    from reference_impl.metrics import RunLog

    Floats = NDArray[float64]

_LAGS_S = (-5.0, 5.0, 0.05)
KvSource = Literal["kv_cache_pct", "recorded request times"]


class Agreement(TypedDict):
    """How one series over time compares."""

    series: str
    unit: str
    mean_real: float
    mean_simulated: float
    mean_absolute_difference: float
    largest_difference: float
    correlation: float
    lag_s: float
    """By how much the simulation is late: the shift with the smallest mean absolute difference."""


@dataclass(frozen=True)
class OverTime:
    """Arrays of equal length, at the ends of the recorder's ticks."""

    time_s: Floats
    """Since the first request was queued."""
    real: dict[str, Floats]
    simulated: dict[str, Floats]
    agreement: list[Agreement]
    kv_source: KvSource
    """Where the real KV use comes from."""
    kv_blocks: int
    """Size of the pool: all of them."""


def over_time(root: Path, record: Record, instance: InstanceSpec, run: RunLog) -> OverTime:
    """Compare the run's ``timeseries.csv`` with its simulation. Raises ConfigError for the file."""
    from reference_impl.metrics import sampled

    series = read_timeseries(root / "timeseries.csv")
    time_s = series.start_s(record) + series.tick_end_s
    kv_use = series.kv_use if series.kv_use is not None else recorded_kv_use(record, instance, time_s)
    real = {"running": series.running, "waiting": series.waiting, "kv_use_pct": 100 * kv_use}

    def at(moments_s: Floats) -> dict[str, Floats]:
        found = sampled(run, moments_s)
        assert found.kv_use is not None, "the simulation's log does not say how large its pool is"
        return {"running": found.running, "waiting": found.waiting, "kv_use_pct": 100 * found.kv_use}

    return OverTime(
        time_s=time_s,
        real=real,
        simulated=at(time_s),
        agreement=[_agreement(name, time_s, real[name], at) for name in real],
        kv_source="kv_cache_pct" if series.kv_use is not None else "recorded request times",
        kv_blocks=instance.kv_blocks,
    )


def recorded_kv_use(record: Record, instance: InstanceSpec, time_s: Floats) -> Floats:
    """Share of the KV blocks that the requests' recorded times imply, where vLLM's own figure was not recorded.

    vLLM counts a block as used while a request holds it: all blocks of the tokens computed so far and of the iteration
    under way. Between its first and its last token a request is taken to have generated evenly; during its prefill
    it is taken to hold its whole prompt. Not for runs that preempt, where a request holds nothing meanwhile.
    """
    import numpy as np

    start_s = np.where(np.isnan(record.scheduled_s), record.queued_s, record.scheduled_s)
    first_s, last_s = record.first_token_s, record.last_token_s
    now_s = time_s[:, None]
    progress = np.clip((now_s - first_s) / np.maximum(last_s - first_s, 1e-9), 0, 1)
    generated = np.where(now_s < first_s, 0, np.floor(1 + progress * (record.output_tokens - 1)))
    blocks = np.ceil((record.prompt_tokens + generated) / instance.block_tokens)
    held = np.where((start_s <= now_s) & (now_s < last_s), blocks, 0).sum(axis=1)
    share: Floats = held / instance.kv_blocks
    return share


def _agreement(
    name: str, time_s: Floats, real: Floats, simulated_at: Callable[[Floats], dict[str, Floats]]
) -> Agreement:
    import numpy as np

    simulated = simulated_at(time_s)[name]
    difference = np.abs(simulated - real)
    lags_s = np.arange(_LAGS_S[0], _LAGS_S[1] + _LAGS_S[2] / 2, _LAGS_S[2])
    shifted = simulated_at((time_s[:, None] + lags_s).ravel())[name].reshape(len(time_s), -1)
    missed = np.abs(shifted - real[:, None]).mean(axis=0)
    varies = np.ptp(simulated) > 0 and np.ptp(real) > 0
    return Agreement(
        series=name,
        unit="percentage points" if name.endswith("_pct") else "requests",
        mean_real=float(real.mean()),
        mean_simulated=float(simulated.mean()),
        mean_absolute_difference=float(difference.mean()),
        largest_difference=float(difference.max()),
        correlation=float(np.corrcoef(real, simulated)[0, 1]) if varies else float("nan"),
        lag_s=round(float(lags_s[np.argmin(missed)]), 3) + 0.0,
    )
