"""How a rate and a seed change the traffic of a run, so that policies can be compared in pairs.

Two variants with the same seed see the same requests at the same times. Two seeds see different traffic: recorded
arrivals are one sample of what might have come, so the seed draws another one.
"""

from __future__ import annotations

from typing import Any, Literal

from experiments.config import RunConfig
from experiments.config_base import ConfigError, Period, StrictModel
from experiments.config_file import parse

RateKey = Literal["rate_rps", "rate_scale"]


class PairingConfig(StrictModel):
    """What a seed selects."""

    kind: Literal["blocks", "windows", "arrivals"] = "blocks"
    """``blocks``: a block bootstrap of the trace in time. ``windows``: the seed-th window of the trace.
    ``arrivals``: nothing but what the run itself draws by its seed (Poisson re-timing, synthetic traces)."""
    length_s: Period = 60.0
    """Of a block or a window, in the trace's own time."""


def with_traffic(
    config: RunConfig, *, rate: float | None, rate_key: RateKey | None, seed: int, pairing: PairingConfig
) -> RunConfig:
    """The run at this rate (None: as configured) with this seed's traffic. Raises ConfigError where they conflict."""
    workload: dict[str, Any] = config.workload.model_dump()
    if rate is not None and rate_key is not None:
        workload |= {"rate_rps": None, "rate_scale": None, rate_key: rate}
    if pairing.kind == "blocks":
        if config.workload.closed_loop:
            raise ConfigError(
                "pairing.kind blocks would part turns from their sessions, which workload.closed_loop keeps together;"
                " give pairing: {kind: windows, length_s: ...} or {kind: arrivals}"
            )
        workload["resample_block_s"] = pairing.length_s
    elif pairing.kind == "windows":
        if config.workload.window_s is not None:
            raise ConfigError("pairing.kind windows chooses workload.window_s itself; leave one of them out")
        workload["window_s"] = (seed * pairing.length_s, (seed + 1) * pairing.length_s)
    return parse(RunConfig, {**config.model_dump(), "workload": workload, "seed": seed}, source=None)
