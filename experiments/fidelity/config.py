"""What ``semiflow fidelity`` reads, and the runs that follow from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from experiments.compare_config import merge
from experiments.config import RunConfig
from experiments.config_base import ConfigError, NonNegative, StrictModel
from experiments.config_file import parse

Overrides = dict[str, Any]
_Policies = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class BarsConfig(StrictModel):
    """What is demanded: unsigned relative errors of means, and how many pairs of policies must truly differ live."""

    ttft: NonNegative = 0.2
    tpot: NonNegative = 0.1
    e2e: NonNegative = 0.1
    dispatch_pairs: Annotated[int, Field(ge=0)] = 3
    batch_pairs: Annotated[int, Field(ge=0)] = 2


class FidelityConfig(StrictModel):
    """Traces x (every dispatch policy with the base's batch policy, every batch policy with the base's dispatch)."""

    title: str = "Live and simulated"
    base: Overrides
    """A run's configuration with a ``serve`` section; ``policies.dispatch`` and ``policies.batch`` are the common
    ones."""
    traces: Annotated[dict[str, Overrides], Field(min_length=1)]
    """Name -> what its runs change of the base: the workload, and perhaps the fleet."""
    dispatch: _Policies
    batch: _Policies
    repeats: Annotated[int, Field(ge=1, le=100)] = 3
    """Live runs of each: their spread is the noise that a difference between policies must exceed."""
    utilisation: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    """Part of the time for which the lanes are to be busy under the common policies: requests of traces and calibration
    runs come so many times as fast (``experiments.fidelity.loads``), so that a slower machine is not a fuller one.
    None: as fast as configured."""
    warmup_requests: Annotated[int, Field(ge=0, le=10_000)] = 0
    """The first so many requests of a trace are served and not counted, in both hosts."""
    calibration: dict[str, Overrides] = Field(default_factory=dict)
    """Name -> what a live run changes of the base that is added to the profile: durations of iterations under real
    traffic, gaps between them, the front door's delay. It should serve other requests than the traces."""
    min_effect: NonNegative = 0.05
    """Relative difference below which two policies count as equal, whatever the noise."""
    bars: BarsConfig = BarsConfig()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name in ("dispatch", "batch"):
            policies = getattr(self, name)
            if len(set(policies)) < len(policies):
                raise ValueError(f"{name}: every policy may stand once, got {list(policies)}")
        names = [*self.traces, *self.calibration]
        if len({slug(name) for name in names}) < len(names):
            raise ValueError(f"traces and calibration: {names} are too alike to name folders after them")
        return self


@dataclass(frozen=True)
class Setting:
    """One trace under one pair of policies; both hosts run it."""

    trace: str
    dispatch: str
    batch: str
    common: tuple[str, str]
    """The trace's common dispatch and batch policy."""
    config: RunConfig

    @property
    def name(self) -> str:
        """Of its folder within its trace's."""
        return f"{slug(self.dispatch)}+{slug(self.batch)}"


def settings(config: FidelityConfig, source: str) -> list[Setting]:
    """Every distinct run, by trace. Raises ConfigError naming the trace and key that are wrong."""
    found: list[Setting] = []
    for trace, overrides in config.traces.items():
        common = parse(RunConfig, merge(config.base, overrides), f"{source}: trace {trace!r}")
        policies = common.policies
        pairs = [(dispatch, policies.batch) for dispatch in config.dispatch]
        pairs += [(policies.dispatch, batch) for batch in config.batch]
        for dispatch, batch in dict.fromkeys(pairs):
            chosen = policies.model_copy(update={"dispatch": dispatch, "batch": batch})
            run = common.model_copy(update={"policies": chosen})
            found.append(Setting(trace, dispatch, batch, (policies.dispatch, policies.batch), run))
    return found


def calibrations(config: FidelityConfig, source: str) -> dict[str, RunConfig]:
    """The live runs that are added to the profile."""
    return {
        name: parse(RunConfig, merge(config.base, overrides), f"{source}: calibration {name!r}")
        for name, overrides in config.calibration.items()
    }


def slug(text: str) -> str:
    """A text as part of a file's name. Raises ConfigError where nothing is left of it."""
    found = re.sub(r"[^A-Za-z0-9_.=-]+", "-", text).strip("-.")
    if not found:
        raise ConfigError(f"{text!r} names no folder; use letters or digits")
    return found[:80]
