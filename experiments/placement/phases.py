"""One phase alone, a mix, or a colocated fleet under a rate: which share of the requests meets each target?

DistServe asks for the target share of TTFT and of TPOT each by itself (P90 of either); the share of requests that meet
both is told beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments.capacity import Sample
from experiments.cases.answers import Answers
from experiments.config import GroupConfig, RunConfig, SloConfig
from experiments.config_base import ConfigError, RoleName
from experiments.config_build import build_cluster, build_trace
from experiments.placement.mixes import Mix, Parallelism
from experiments.run import simulated_log

if TYPE_CHECKING:
    from reference_impl.core.spec import ClusterSpec
    from workloads.trace import Trace

Phase = Literal["prefill", "decode", "both"]
_INSTANT_S = 1e-9


@dataclass(frozen=True)
class Setting:
    """What is put under a rate."""

    groups: tuple[GroupConfig, ...]
    phase: Phase = "both"
    """``prefill``: every answer is one token. ``decode``: prompts take no time, and neither does their hand-over."""


class Shares(NamedTuple):
    """Shares of all arrived requests."""

    ttft: float
    tpot: float
    both: float
    load_growing: bool


def alone(phase: Literal["prefill", "decode"], each: Parallelism) -> Setting:
    """One instance with one phase to do."""
    if phase == "prefill":
        return Setting((_group(1, "colocated", each),), phase)
    return Setting((_group(1, "prefill", each), _group(1, "decode", each)), phase)


def colocated(each: Parallelism) -> Setting:
    """One instance that does both."""
    return Setting((_group(1, "colocated", each),))


def together(mix: Mix) -> Setting:
    """All instances of a mix."""
    return Setting((_group(mix.prefills, "prefill", mix.prefill), _group(mix.decodes, "decode", mix.decode)))


def _group(count: int, role: RoleName, each: Parallelism) -> GroupConfig:
    return GroupConfig(count=count, role=role, tp=each.tp, pp=each.pp)


def sampler(
    config: RunConfig,
    setting: Setting,
    seeds: Sequence[int],
    ran: Callable[[], None],
    answers: Answers,
    *,
    joint: bool = False,
) -> Callable[[float], list[Sample]]:
    """A ``sample`` for :func:`experiments.capacity.find_capacity`; ``ran`` is called after each run.

    ``joint``: of ``both`` phases the requests count that meet both targets; else the target that fewer meet.
    """
    _targets(config)

    def sample(rate_rps: float) -> list[Sample]:
        samples = []
        for seed in seeds:
            shares = answered(answers, with_setting(config, setting, rate_rps, seed), setting.phase)
            both = shares.both if joint else min(shares.ttft, shares.tpot)
            wanted = {"prefill": shares.ttft, "decode": shares.tpot, "both": both}
            samples.append(Sample(wanted[setting.phase], rate_rps, shares.load_growing))
            ran()
        return samples

    return sample


def with_setting(config: RunConfig, setting: Setting, rate_rps: float, seed: int) -> RunConfig:
    """The run of ``setting`` under Poisson arrivals at ``rate_rps``, drawn by ``seed``."""
    fleet = config.fleet.model_copy(update={"groups": setting.groups})
    workload = config.workload.model_copy(update={"rate_rps": rate_rps, "rate_scale": None})
    return RunConfig.model_validate(
        {**config.model_dump(), "fleet": fleet.model_dump(), "workload": workload.model_dump(), "seed": seed}
    )


def answered(answers: Answers, config: RunConfig, phase: Phase) -> Shares:
    """:func:`measure`, unless that is known already."""
    return Shares(*answers.ask(measure, config, phase))


def measure(config: RunConfig, phase: Phase) -> Shares:
    """Simulate one run. Raises what building it raises."""
    import numpy as np

    from reference_impl.metrics.settling import load_growth
    from reference_impl.metrics.slo import LoggedSlo, met

    slo = _targets(config)
    trace, cluster = build_trace(config.workload, config.seed), build_cluster(config)
    if phase == "prefill":
        trace = replace(trace, output_tokens=np.ones_like(trace.output_tokens))
    if phase == "decode":
        cluster = _prompts_for_free(cluster, trace)
    run = simulated_log(cluster, trace, {})
    judged = met(run, LoggedSlo(slo.ttft_s, slo.tpot_s))
    growing = bool(load_growth(run).get("load_growing", 0.0))
    return Shares(float(judged.ttft.mean()), float(judged.tpot.mean()), float(judged.every.mean()), growing)


def _prompts_for_free(cluster: ClusterSpec, trace: Trace) -> ClusterSpec:
    """Prompts take no time, are never short of memory, and move at once."""
    from reference_impl.core.spec import Link
    from reference_impl.latency import constant

    instant = constant(_INSTANT_S, _INSTANT_S)
    blocks = int(trace.prompt_tokens.sum()) // cluster.instances[0].block_tokens + 2 * len(trace)
    instances = (
        replace(each, latency=instant, kv_blocks=blocks) if each.role == "prefill" else each
        for each in cluster.instances
    )
    return replace(cluster, instances=tuple(instances), link=Link(1e18))


def _targets(config: RunConfig) -> SloConfig:
    if config.slo is None or config.slo.ttft_s is None or config.slo.tpot_s is None:
        raise ConfigError("a proposal needs both targets, for instance --slo ttft=0.2,tpot=0.1")
    return config.slo
