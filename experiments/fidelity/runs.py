"""Live and simulated runs in a folder that can be gone on with: ``TRACE/POLICIES/{live-1,live-2,...,simulated}``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.decisions import replay_run
from experiments.fidelity.config import Setting, slug
from experiments.fidelity.hosts import RUN, LiveHost
from experiments.fidelity.measures import Measures, load, measure, save
from experiments.manifest import environment
from experiments.run import EVENTS
from experiments.run_folder import DECISIONS, write_json

DONE = "measures.json"
_CARRIED_OUT = {"dispatch": "dispatch", "batch": "run"}
"""Kind of policy -> the events of which each followed from a decision of one."""
Progress = Callable[[int, int, str], None]
"""Called with (runs done, runs in all, what runs next)."""
LiveRuns = dict[str, dict[str, list[Measures]]]
"""Trace -> name of the setting -> measures of each live run."""


def live_runs(
    settings: Sequence[Setting],
    calibrating: Mapping[str, RunConfig],
    repeats: int,
    host: LiveHost,
    out: Path,
    warmup_requests: int,
    progress: Progress | None = None,
) -> tuple[LiveRuns, list[Path]]:
    """Run what is missing; also returns the runs' folders of the calibration.

    Repeat by repeat, those of the calibration within each, so that a machine that drifts bothers all alike.
    """
    found: LiveRuns = {}
    calibration: list[Path] = []
    done, total = 0, repeats * (len(settings) + len(calibrating))
    for repeat in range(1, repeats + 1):
        for name, config in calibrating.items():
            _tell(progress, done, total, f"live {repeat}: {name}, for the profile")
            folder = out / "calibration" / slug(name) / f"live-{repeat}"
            live_run(config, host, folder, 0)
            calibration.append(folder / RUN)
            done += 1
        for setting in settings:
            _tell(progress, done, total, f"live {repeat}: {setting.trace}, {setting.name}")
            folder = out / slug(setting.trace) / setting.name / f"live-{repeat}"
            measures = live_run(setting.config, host, folder, warmup_requests)
            found.setdefault(setting.trace, {}).setdefault(setting.name, []).append(measures)
            done += 1
    _tell(progress, total, total, "simulating")
    return found, calibration


def live_run(config: RunConfig, host: LiveHost, folder: Path, warmup_requests: int) -> Measures:
    """The run in ``folder``, made now unless it is there: with its marker, for this very configuration."""
    key = _key(config, warmup_requests)
    known = load(folder / DONE, key)
    if known is not None:
        return known
    _clear(folder)
    host.run(config, folder)
    measures = {**measure(folder / RUN / EVENTS, warmup_requests), **_decisions(folder / RUN)}
    write_json(folder / "environment.json", environment())
    save(folder / DONE, key, measures)
    return measures


def _decisions(run: Path) -> dict[str, float]:
    """How many decisions were recorded, how many were carried out, and how many policies decide otherwise when they are
    shown the same again."""
    from reference_impl.metrics import read

    if not any(run.glob(DECISIONS)):
        return {}
    policies = [found for _, replayed in replay_run(run) for found in replayed]
    rows = read(run / EVENTS).rows
    kinds = {found.kind for found in policies}
    return {
        "decisions": sum(found.decisions for found in policies),
        "decisions_carried_out": sum(len(rows[row]) for kind, row in _CARRIED_OUT.items() if kind in kinds),
        "policies_that_differ": sum(found.difference is not None for found in policies),
    }


def simulated_run(config: RunConfig, folder: Path, warmup_requests: int) -> Measures:
    """Made anew each time: it takes a moment, and the profile may be another one."""
    from experiments.run import execute

    execute(config, folder, force=True)
    return measure(folder / EVENTS, warmup_requests)


def _key(config: RunConfig, warmup_requests: int) -> str:
    """Of a live run: its configuration, which the costs of a simulation are no part of."""
    fleet = config.fleet.model_copy(update={"hardware_profile": None})
    content = config.model_copy(update={"fleet": fleet}).model_dump(mode="json")
    text = json.dumps({"config": content, "warmup_requests": warmup_requests}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _clear(folder: Path) -> None:
    """An empty folder; what an interrupted run, or one of another configuration, left there goes."""
    mark = folder / ".semiflow-run"
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise ConfigError(f"{folder}: is not empty and no run of semiflow fidelity; choose another --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.touch()


def _tell(progress: Progress | None, done: int, total: int, what: str) -> None:
    if progress is not None:
        progress(done, total, what)
