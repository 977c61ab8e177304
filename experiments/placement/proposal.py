"""The search: every parallelism of each phase alone, the mixes that follow, and the best of them simulated whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from experiments.capacity import Capacity, find_capacity
from experiments.cases.answers import Answers
from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.placement.mixes import Goodputs, Mix, Parallelism, Ranked, ranked, replicated
from experiments.placement.phases import Setting, alone, answered, colocated, sampler, together, with_setting

Progress = Callable[[int, str], None]
"""Called after each simulated run with (runs done, what is being searched)."""
_LOWEST_RPS = 0.05
_HIGHEST_RPS = 10_000.0
_AROUND = 2.0
"""A mix is searched from its predicted rate divided by this."""


@dataclass(frozen=True)
class Search:
    """What is asked."""

    devices: int
    """At most so many in the mix."""
    target: float = 0.90
    """Share of the requests that must be in each target."""
    tolerance: float = 0.03
    seeds: Sequence[int] = (0,)
    joint: bool = False
    """Whether one and the same share of the requests has to meet both targets; DistServe: each target has its own."""
    max_pp: int | None = None
    """At most so many stages of an instance; None: as many as there are devices."""
    whole: int = 6
    """So many of the best mixes are simulated whole."""
    rate_rps: float | None = None
    """A rate to carry, for :attr:`Proposal.replicated`."""


@dataclass(frozen=True)
class Whole:
    """A fleet that was simulated with all its instances."""

    name: str
    devices: int
    rps: float
    """The highest rate at which both targets are met by their share of the requests; 0: none."""
    met_both: float
    """Share of the requests that meet both targets at that rate."""
    predicted_rps: float | None
    """From the phases alone; None for a colocated fleet."""
    caveats: tuple[str, ...] = ()

    @property
    def rps_per_device(self) -> float:
        """What fleets are ranked by."""
        return self.rps / self.devices


@dataclass(frozen=True)
class Proposal:
    """The answer."""

    prefill_rps: Goodputs
    decode_rps: Goodputs
    impossible: Mapping[Parallelism, str]
    """Those that the cost model or the memory rules out, and why."""
    mixes: tuple[tuple[Mix, Whole], ...]
    """Simulated whole, the best first."""
    colocated: tuple[tuple[Parallelism, Whole], ...]
    """By parallelism, one instance each, the best first."""
    replicated: Mix | None = None
    caveats: tuple[str, ...] = field(default=())

    @property
    def best(self) -> Mix:
        """The mix with the highest rate per device."""
        return self.mixes[0][0]

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        told = [{**mix.to_json(), **_told(whole)} for mix, whole in self.mixes]
        return {
            "prefill_rps": {str(each): rps for each, rps in self.prefill_rps.items()},
            "decode_rps": {str(each): rps for each, rps in self.decode_rps.items()},
            "impossible": {str(each): reason for each, reason in self.impossible.items()},
            "mixes": told,
            "colocated": [{**each._asdict(), **_told(whole)} for each, whole in self.colocated],
            "replicated": self.replicated.to_json() if self.replicated is not None else None,
            "caveats": list(self.caveats),
        }


def propose(
    config: RunConfig, search: Search, progress: Progress | None = None, answers: Answers | None = None
) -> Proposal:
    """Search. ``config`` says model, hardware, traffic, targets and policies; its fleet's groups are replaced.

    Only runs that ``answers`` does not know are simulated.
    Raises ConfigError where no parallelism is possible or no mix carries anything, and what building a run raises.
    """
    hunt = _Hunt(config, search, progress or (lambda _runs, _label: None), answers or Answers())
    possible, impossible = _parallelisms(config, search)
    prefill = {each: hunt.goodput(f"prefill {each}", alone("prefill", each)) for each in possible}
    decode = {each: hunt.goodput(f"decode {each}", alone("decode", each)) for each in possible}
    candidates = ranked(prefill, decode, search.devices)[: search.whole]
    if not candidates:
        raise ConfigError(
            f"no mix of {search.devices} devices meets the targets even at {_LOWEST_RPS:g} requests/s; prefill alone "
            f"carries {_listed(prefill)}, decode alone {_listed(decode)}; allowed: looser targets, or more devices"
        )
    mixes = [(each.mix, hunt.whole_mix(each)) for each in candidates]
    baselines = [(each, hunt.whole_colocated(each)) for each in possible]
    return Proposal(
        prefill,
        decode,
        impossible,
        tuple(sorted(mixes, key=lambda pair: _order(pair[1]))),
        tuple(sorted(baselines, key=lambda pair: _order(pair[1]))),
        replicated(prefill, decode, search.rate_rps) if search.rate_rps is not None else None,
        tuple(hunt.caveats),
    )


class _Hunt:
    """Finds the goodput of one setting after the other."""

    def __init__(self, config: RunConfig, search: Search, progress: Progress, answers: Answers) -> None:
        self._config, self._search, self._progress, self._answers = config, search, progress, answers
        self._runs = 0
        self.caveats: list[str] = []

    def goodput(self, name: str, setting: Setting) -> float:
        """Of a phase alone; 0 where it misses its target at any rate."""
        return self._capacity(name, setting, _LOWEST_RPS).capacity_rps or 0.0

    def whole_mix(self, candidate: Ranked) -> Whole:
        """The whole mix under one stream of requests."""
        mix = candidate.mix
        return self._whole(str(mix), together(mix), mix.devices, candidate.rps)

    def whole_colocated(self, each: Parallelism) -> Whole:
        """One instance that does both phases."""
        return self._whole(f"1 colocated ({each})", colocated(each), each.devices, None)

    def _whole(self, name: str, setting: Setting, devices: int, predicted_rps: float | None) -> Whole:
        lowest = _LOWEST_RPS if predicted_rps is None else max(_LOWEST_RPS, predicted_rps / _AROUND)
        found = self._capacity(name, setting, lowest)
        if found.capacity_rps is None and lowest > _LOWEST_RPS:
            found = self._capacity(name, setting, _LOWEST_RPS)
        rps = found.capacity_rps or 0.0
        return Whole(name, devices, rps, self._both(setting, rps), predicted_rps, found.caveats)

    def _both(self, setting: Setting, rps: float) -> float:
        """The share that meets both targets at ``rps``."""
        if not rps:
            return 0.0
        runs = [with_setting(self._config, setting, rps, seed) for seed in self._search.seeds]
        shares = [answered(self._answers, run, "both") for run in runs]
        return sum(each.both for each in shares) / len(shares)

    def _capacity(self, name: str, setting: Setting, lowest: float) -> Capacity:
        search = self._search
        found = find_capacity(
            sampler(self._config, setting, search.seeds, lambda: self._ran(name), self._answers, joint=search.joint),
            lowest=lowest,
            highest=_HIGHEST_RPS,
            target=search.target,
            tolerance=search.tolerance,
        )
        self.caveats += [f"{name}: {caveat}" for caveat in found.caveats if found.capacity_rps is not None]
        return found

    def _ran(self, name: str) -> None:
        self._runs += 1
        self._progress(self._runs, name)


def _parallelisms(config: RunConfig, search: Search) -> tuple[list[Parallelism], dict[Parallelism, str]]:
    """Those that fit the devices and have a cost model and room for the model: ``tp`` divides the heads, ``pp`` the
    layers (simdistserve/benchmarks/search_configs.py looks at such pairs only)."""
    from experiments.config_costs import build_costs
    from reference_impl.latency import ProfileError, model

    shape, possible, impossible = model(config.fleet.model), [], {}
    degrees = range(1, search.devices + 1)
    stages = [pp for pp in degrees if shape.layers % pp == 0 and pp <= (search.max_pp or search.devices)]
    pairs = [Parallelism(tp, pp) for tp in degrees if shape.heads % tp == 0 for pp in stages]
    for each in (pair for pair in pairs if pair.devices <= search.devices):
        try:
            build_costs(config.fleet.model_copy(update=each._asdict()))
        except ProfileError as error:
            impossible[each] = str(error)
        else:
            possible.append(each)
    if not possible:
        raise ConfigError(f"no parallelism is possible: {'; '.join(impossible.values())}")
    return possible, impossible


def _order(whole: Whole) -> tuple[float, int]:
    return -whole.rps_per_device, whole.devices


def _told(whole: Whole) -> dict[str, Any]:
    return {**asdict(whole), "caveats": list(whole.caveats), "rps_per_device": whole.rps_per_device}


def _listed(goodputs: Goodputs) -> str:
    return ", ".join(f"{rps:.3g}/s with {each}" for each, rps in goodputs.items())
