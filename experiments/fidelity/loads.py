"""How fast a study's requests come: as fast as keeps the fleet's lanes busy for a given part of the time.

Near saturation a cost that is off by 3 % is off by 30 % in waiting times, and how fast a machine is decides where that
begins. The rate is found by simulating the common policies with the costs that were measured of the workers, before
any live run; it changes the traffic of both hosts alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.fidelity.config import Setting, slug
from experiments.fidelity.hosts import simulated_config
from experiments.fidelity.runs import simulated_run

_SLOWEST, _FASTEST = 1 / 256, 256.0
_HALVINGS = 12
Loads = Mapping[str, float]
"""Name of a trace or of a calibration run -> how many times as fast its requests come as configured."""


def at_load(settings: list[Setting], loads: Loads, profile: Path) -> list[Setting]:
    """The same with the rates of ``loads``; policies that predict are told the costs of ``profile``."""
    return [
        replace(each, config=simulated_config(faster(each.config, loads[each.trace]), profile, None))
        for each in settings
    ]


def faster(config: RunConfig, factor: float) -> RunConfig:
    """The same requests, ``factor`` times as fast."""
    workload = config.workload
    if workload.rate_rps is not None:
        changed = {"rate_rps": workload.rate_rps * factor}
    else:
        changed = {"rate_scale": (workload.rate_scale or 1.0) * factor}
    return config.model_copy(update={"workload": workload.model_copy(update=changed)})


def find_loads(runs: Mapping[str, RunConfig], utilisation: float | None, profile: Path, folder: Path) -> Loads:
    """For each run its factor; 1 where no utilisation is wanted. Its simulations are left in ``folder``.

    ``profile`` must not have learnt from live runs at these rates, or a study that goes on would find others. Raises
    ConfigError.
    """
    if utilisation is None:
        return dict.fromkeys(runs, 1.0)
    return {name: _search(config, utilisation, profile, folder / slug(name)) for name, config in runs.items()}


def _search(config: RunConfig, utilisation: float, profile: Path, folder: Path) -> float:
    """By halving on the logarithm: the faster the requests come, the busier the lanes are."""

    def busy(factor: float) -> float:
        run = simulated_config(faster(config, factor), profile, None)
        return simulated_run(run, folder, 0)["lane_utilisation"]

    slow, fast = _SLOWEST, _FASTEST
    if not busy(slow) < utilisation < busy(fast):
        raise ConfigError(
            f"utilisation {utilisation:g} of workload {config.workload.synthetic or config.workload.trace} is out of"
            f" reach ({busy(slow):.3f} to {busy(fast):.3f} at rates of {slow:g} to {fast:g} times the configured one);"
            " choose one between, or a workload with more requests"
        )
    for _ in range(_HALVINGS):
        middle = (slow * fast) ** 0.5
        slow, fast = (middle, fast) if busy(middle) < utilisation else (slow, middle)
    return float(f"{(slow * fast) ** 0.5:.3g}")
