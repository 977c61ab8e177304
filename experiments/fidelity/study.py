"""A whole study: profile, live runs, simulated runs, verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_build import build_trace
from experiments.config_file import to_yaml
from experiments.fidelity.config import FidelityConfig, Setting, calibrations, settings, slug
from experiments.fidelity.hosts import LiveHost, simulated_config
from experiments.fidelity.loads import Loads, at_load, faster, find_loads
from experiments.fidelity.measures import FIGURES, Measures
from experiments.fidelity.runs import LiveRuns, Progress, live_runs, simulated_run
from experiments.fidelity.verdict import Bar, Compared, Pair, Ranking, bars, compared, decisions_bar, pairs_of, rankings
from experiments.manifest import environment
from experiments.profiling.result import overheads_in, write_profile
from experiments.profiling.run import add_live_runs, engine_facts
from experiments.run_folder import write_json
from experiments.serve_build import build_live
from reference_impl.latency.measured import read_measured

RESULT, PAGE, CONFIG = "fidelity.json", "fidelity.html", "fidelity.yaml"
PROFILE = "profile.json"
"""Of the workers by themselves, or the given one: it says how fast requests come, and live policies are told it."""
CALIBRATED = "calibrated.json"
"""The same with what live runs add to it: the simulator's costs."""
LOADS = "loads"
Profiler = Callable[[RunConfig, Path], None]
"""Measures the engine of a configuration into a profile's file."""


@dataclass(frozen=True)
class Study:
    """All that was found."""

    config: FidelityConfig
    rows: tuple[Compared, ...]
    pairs: tuple[Pair, ...]
    rankings: tuple[Ranking, ...]
    bars: tuple[Bar, ...]
    facts: Mapping[str, Mapping[str, Any]]
    """Name of a setting with its trace -> measures of its runs, live and simulated."""
    profile: Mapping[str, Any]
    loads: Loads
    """How many times as fast as configured the requests of each trace came."""

    @property
    def reached(self) -> bool:
        """Whether every demand was met."""
        return all(bar.reached for bar in self.bars)

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``."""
        kept = ("provenance", "errors", "live", "overheads", "drift", "environment")
        return {
            "config": self.config.model_dump(mode="json"),
            "reached": self.reached,
            "bars": [bar._asdict() for bar in self.bars],
            "rankings": [ranking._asdict() for ranking in self.rankings],
            "pairs": [{**pair._asdict(), "kept": pair.kept} for pair in self.pairs],
            "figures": [{**row._asdict(), "error": row.error, "spread": row.spread} for row in self.rows],
            "rate_factors": dict(self.loads),
            "runs": dict(self.facts),
            "profile": {key: self.profile.get(key) for key in kept},
            "environment": environment(),
        }


def run_study(
    config: FidelityConfig,
    out: Path,
    host: LiveHost,
    profiler: Profiler,
    *,
    profile: Path | None = None,
    source: str = "fidelity",
    progress: Progress | None = None,
) -> Study:
    """Do what is missing under ``out`` and compare. Without a ``profile`` this machine is profiled first.

    Everything that the configuration names is looked up before the first run. Raises what ``experiments.run.execute``
    and the live host raise.
    """
    wanted, calibrating = settings(config, source), calibrations(config, source)
    engine = wanted[0].config
    _check(wanted)
    _check_one_engine([*(each.config for each in wanted), *calibrating.values()])
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG).write_text(to_yaml(config), encoding="utf-8")
    measured = _profiled(engine, out / PROFILE, profiler, profile, progress)
    calibrating = {} if overheads_in(measured) is not None else calibrating
    loads = find_loads({**_commons(wanted), **calibrating}, config.utilisation, out / PROFILE, out / LOADS)
    wanted = at_load(wanted, loads, out / PROFILE)
    calibrating = {name: faster(run, loads[name]) for name, run in calibrating.items()}
    live, calibration = live_runs(wanted, calibrating, config.repeats, host, out, config.warmup_requests, progress)
    calibrated = _calibrated(measured, calibration, engine, out / CALIBRATED)
    simulated = {
        (each.trace, each.name): simulated_run(
            simulated_config(each.config, out / CALIBRATED, overheads_in(calibrated)),
            out / slug(each.trace) / each.name / "simulated",
            config.warmup_requests,
        )
        for each in wanted
    }
    study = judged(config, wanted, live, simulated, calibrated, loads)
    write_json(out / RESULT, study.to_json())
    return study


def judged(
    config: FidelityConfig,
    wanted: Sequence[Setting],
    live: LiveRuns,
    simulated: Mapping[tuple[str, str], Measures],
    profile: Mapping[str, Any],
    loads: Loads,
) -> Study:
    """The study of finished runs."""
    rows: list[Compared] = []
    facts: dict[str, dict[str, Any]] = {}
    for each in wanted:
        mine, made = live[each.trace][each.name], simulated[each.trace, each.name]
        rows += compared(each.trace, each.dispatch, each.batch, mine, made, FIGURES)
        facts[f"{each.trace}: {each.name}"] = {"live": [dict(run) for run in mine], "simulated": dict(made)}
    common = {each.trace: each.common for each in wanted}
    pairs = [
        *pairs_of(rows, "dispatch", config.dispatch, common, config.min_effect),
        *pairs_of(rows, "batch", config.batch, common, config.min_effect),
    ]
    everyone = [run for members in live.values() for runs in members.values() for run in runs]
    demands = (*bars(rows, pairs, config.bars), *decisions_bar(everyone))
    return Study(config, tuple(rows), tuple(pairs), tuple(rankings(pairs)), demands, facts, profile, loads)


def _commons(wanted: Sequence[Setting]) -> dict[str, RunConfig]:
    """Each trace's run under its common policies."""
    return {each.trace: each.config for each in wanted if (each.dispatch, each.batch) == each.common}


def _profiled(
    engine: RunConfig, path: Path, profiler: Profiler, given: Path | None, progress: Progress | None
) -> dict[str, Any]:
    """The profile in ``path``: the given one, or that of an earlier attempt, or a new one."""
    if given is None and not path.exists():
        if progress is not None:
            progress(0, 1, "profiling")
        profiler(engine, path)
    content = _read_profile(path if given is None else given, engine_facts(engine))
    write_profile(path, content)
    return content


def _calibrated(profile: Mapping[str, Any], runs: Sequence[Path], engine: RunConfig, path: Path) -> Mapping[str, Any]:
    """The profile with what live runs add to it, in ``path``."""
    write_profile(path, profile)
    return add_live_runs(engine, path, runs) if runs else profile


def _read_profile(path: Path, engine: Mapping[str, Any]) -> dict[str, Any]:
    read_measured(path)  # says what is wrong with it
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for fact, wanted in engine.items():
        if fact in content and content[fact] != wanted:
            raise ConfigError(
                f"{path}: is a profile of {fact} {content[fact]}, the study runs {fact} {wanted}; give a profile of"
                " this engine (--profile), or another --out to have one made"
            )
    return content


def _check_one_engine(runs: Sequence[RunConfig]) -> None:
    """One profile tells the costs of all runs."""
    first = engine_facts(runs[0])
    for run in runs[1:]:
        for fact, value in engine_facts(run).items():
            if value != first[fact]:
                raise ConfigError(
                    f"the runs of a study share one profile, but have {fact} {first[fact]} and {value}; make it two"
                    " studies"
                )


def _check(wanted: Sequence[Setting]) -> None:
    """Raises ConfigError, UnknownPolicy and the like before anything runs."""
    for setting in wanted:
        instances = build_live(setting.config, None).instances
        trace = build_trace(setting.config.workload, setting.config.seed)
        limit = min(instance.max_request_tokens for instance in instances)
        told = build_live(setting.config, None).prefix_block_tokens
        if trace.prefix_block_tokens not in (None, told):
            raise ConfigError(
                f"trace {setting.trace!r} has prefix ids of {trace.prefix_block_tokens} tokens, live policies would see"
                f" ids of {told}; set serve.prefix_block_tokens: {trace.prefix_block_tokens}"
            )
        largest = int((trace.prompt_tokens + trace.output_tokens).max())
        if largest > limit:
            raise ConfigError(
                f"trace {setting.trace!r}: a request has {largest} tokens; allowed: at most {limit}, for every"
                " instance must take it; clip them (workload.max_total_tokens) or give more fleet.kv_blocks"
            )
