"""The highest rate at which a deployment still meets its SLO: bracketing, then bisection.

The search assumes that attainment falls as the rate rises. Finite traces and prefix caches can break that, so one more
probe beyond the failing end looks whether a higher rate passes again; where any probe contradicts the assumption the
result says so and stays with the safe side: the highest probe below which none failed.

A probe whose load was still growing at its last arrival fails, whatever it attained: it attained that because it was
short, so a capacity from short runs would be too high.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from experiments.cases.model import Case, Runner
from experiments.cases.pool import Progress, run_cases
from experiments.cases.store import CaseStore
from experiments.cases.traffic import PairingConfig, RateKey, with_traffic
from experiments.config import RunConfig
from experiments.config_base import ConfigError

Status = Literal["found", "below_lowest", "above_highest"]
_NOISE = 0.01
"""A smaller rise of attainment with the rate is not worth a word."""
_CONFIRM = 1.25


@dataclass(frozen=True)
class Sample:
    """One run at one rate."""

    attainment: float
    offered_rps: float
    load_growing: bool = False
    """At the last arrival: see ``reference_impl/metrics/settling.py``."""


@dataclass(frozen=True)
class Probe:
    """All seeds at one rate; it passes if the mean attainment reaches the target under a load that had settled."""

    rate: float
    """What was set: requests per second, or the factor on recorded arrivals."""
    offered_rps: float
    attainment: float
    by_seed: tuple[float, ...]
    load_growing: bool
    """In at least half of the seeds."""
    passed: bool


@dataclass(frozen=True)
class Capacity:
    """The answer and how it was found."""

    status: Status
    """``found``; ``below_lowest``: the lowest rate already fails; ``above_highest``: the highest still passes."""
    capacity_rps: float | None
    """Offered rate of the highest probe that passes (a lower bound if ``above_highest``); None: none passes."""
    bracket: tuple[float | None, float | None]
    """Highest rate that passes and lowest that fails, as set."""
    target: float
    tolerance: float
    monotone: bool
    """False: attainment did not fall with the rate everywhere; see ``caveats``."""
    caveats: tuple[str, ...]
    probes: tuple[Probe, ...]
    """By ascending rate."""


def find_capacity(
    sample: Callable[[float], Sequence[Sample]],
    *,
    lowest: float,
    highest: float,
    target: float = 0.90,
    tolerance: float = 0.02,
    progress: Callable[[Probe], None] | None = None,
) -> Capacity:
    """Search [lowest, highest]; ``sample(rate)`` runs all seeds. Ends when the bracket is ``tolerance`` wide, relative.

    Probes double from ``lowest`` until one fails, so about log2(highest / lowest) + log2(1 / tolerance) of them.
    """
    if not 0 < lowest <= highest:
        raise ConfigError(f"rates from {lowest} to {highest}; allowed: 0 < lowest <= highest")
    if not 0 < target <= 1 or not 0 < tolerance < 1:
        raise ConfigError(f"target {target}, tolerance {tolerance}; allowed: above 0, up to 1")
    probes: list[Probe] = []

    def passes(rate: float) -> bool:
        probes.append(_probe(rate, sample(rate), target))
        if progress is not None:
            progress(probes[-1])
        return probes[-1].passed

    low, high = _bracket(passes, lowest, highest)
    while low is not None and high is not None and high - low > tolerance * low:
        middle = (low + high) / 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    if low is not None and high is not None and high < highest:
        passes(min(_CONFIRM * high, highest))
    return _answer(probes, target, tolerance)


def seeded_sampler(
    config: RunConfig,
    runner: Runner,
    *,
    seeds: Sequence[int] = (0,),
    rate_key: RateKey = "rate_rps",
    pairing: PairingConfig | None = None,
    store: CaseStore | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> Callable[[float], Sequence[Sample]]:
    """A ``sample`` for :func:`find_capacity` that runs ``config`` at a rate once per seed. Raises ConfigError."""
    if config.slo is None:
        raise ConfigError("capacity needs an SLO, for instance --slo ttft=1.0,tpot=0.1")
    traffic = pairing if pairing is not None else PairingConfig(kind="arrivals")

    def sample(rate: float) -> Sequence[Sample]:
        cases = [
            Case(
                "capacity",
                config.workload.trace,
                rate,
                seed,
                with_traffic(config, rate=rate, rate_key=rate_key, seed=seed, pairing=traffic),
            )
            for seed in seeds
        ]
        outcomes = run_cases(cases, runner, store, processes=processes, progress=progress)
        return [_sample(outcomes[case.key].metrics, rate) for case in cases]

    return sample


def _sample(metrics: Mapping[str, float], rate: float) -> Sample:
    if "attainment" not in metrics:
        raise ConfigError(f"no attainment at rate {rate:g}: the run has no requests; choose a longer trace")
    return Sample(metrics["attainment"], metrics.get("offered_rps", rate), bool(metrics.get("load_growing", 0.0)))


def _probe(rate: float, samples: Sequence[Sample], target: float) -> Probe:
    attainment = sum(sample.attainment for sample in samples) / len(samples)
    offered_rps = sum(sample.offered_rps for sample in samples) / len(samples)
    by_seed = tuple(sample.attainment for sample in samples)
    growing = 2 * sum(sample.load_growing for sample in samples) >= len(samples)
    return Probe(rate, offered_rps, attainment, by_seed, growing, attainment >= target and not growing)


def _bracket(passes: Callable[[float], bool], lowest: float, highest: float) -> tuple[float | None, float | None]:
    """A rate that passes and a higher one that fails; None for the one that was not met."""
    low: float | None = None
    rate = lowest
    while passes(rate):
        low = rate
        if rate >= highest:
            return low, None
        rate = min(2 * rate, highest)
    return low, rate


def _answer(probes: Sequence[Probe], target: float, tolerance: float) -> Capacity:
    ordered = sorted(probes, key=lambda probe: probe.rate)
    failed = [probe for probe in ordered if not probe.passed]
    safe = [probe for probe in ordered if probe.passed and (not failed or probe.rate < failed[0].rate)]
    best = safe[-1] if safe else None
    rise = _steepest_rise(ordered)
    return Capacity(
        status="below_lowest" if best is None else "found" if failed else "above_highest",
        capacity_rps=best.offered_rps if best else None,
        bracket=(best.rate if best else None, failed[0].rate if failed else None),
        target=target,
        tolerance=tolerance,
        monotone=rise is None,
        caveats=tuple(_caveats(ordered, failed, rise, target)),
        probes=tuple(ordered),
    )


def _steepest_rise(ordered: Sequence[Probe]) -> tuple[Probe, Probe] | None:
    """Neighbours between which attainment rises most with the rate, if by more than noise."""
    pairs = [pair for pair in pairwise(ordered) if pair[1].attainment > pair[0].attainment + _NOISE]
    return max(pairs, key=lambda pair: pair[1].attainment - pair[0].attainment, default=None)


def _caveats(
    ordered: Sequence[Probe], failed: Sequence[Probe], rise: tuple[Probe, Probe] | None, target: float
) -> Iterator[str]:
    first, last = ordered[0], ordered[-1]
    if not first.passed and not first.load_growing:
        yield f"attainment is {first.attainment:.3f}, below {target:g}, at the lowest rate, {first.rate:g}: start lower"
    if not failed:
        yield (
            f"attainment is still {last.attainment:.3f}, not below {target:g}, at the highest rate, {last.rate:g}:"
            " the capacity is at least that; raise the upper end"
        )
    short = [probe for probe in failed if probe.attainment >= target]
    if short:
        yield (
            f"attainment is {short[0].attainment:.3f} at {short[0].rate:g}, but the load was still growing at the last"
            f" arrival, so that a longer run might miss {target:g}: counted as failed; raise the number of requests"
            " for a sharper answer"
        )
    if rise is not None:
        low, high = rise
        yield (
            f"attainment rises from {low.attainment:.3f} at {low.rate:g} to {high.attainment:.3f} at {high.rate:g}:"
            " it does not fall with the rate everywhere, so higher rates may pass too; use more seeds or longer traces"
        )
