"""``semiflow profile``: from a configuration to a profile's file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_serve import ServeConfig
from experiments.profiling.live import live_iterations
from experiments.profiling.measure import Pool, measure
from experiments.profiling.notes import Notes
from experiments.profiling.overheads import overheads
from experiments.profiling.result import profile_json, with_live_runs, write_profile
from experiments.profiling.shapes import Limits, shapes
from experiments.profiling.workers import workers
from experiments.run import EVENTS
from experiments.serve_build import build_live

if TYPE_CHECKING:
    from reference_impl.core.spec import InstanceSpec

Progress = Callable[[int, int], None]
ROUNDS = 3


def profile_engine(
    config: RunConfig, path: Path, *, rounds: int = ROUNDS, quick: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure the fleet's workers, all at work at once, and write the profile to ``path``; returns what is in it.

    Interrupted, it goes on where it was: timings are kept beside ``path`` until the file is there. Raises EngineError.
    """
    serve = config.serve or ServeConfig()
    spec = build_live(config, None).instances[0]
    wanted = shapes(_limits(spec), quick=quick)
    device = engine_facts(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    cores = {"instance_cores": serve.instance_cores, "other_cores": serve.other_cores}
    notes = Notes(path.with_name(f"{path.name}.notes"), {**device, **cores, "rounds": rounds}, wanted)
    with workers(config) as executors:
        notes.keep(measure(executors, Pool(spec.kv_blocks, spec.block_tokens), wanted, rounds, notes.timings, progress))
    content = profile_json(device, wanted, notes.timings)
    write_profile(path, content)
    notes.remove()
    return content


def engine_facts(config: RunConfig) -> dict[str, Any]:
    """What a profile is of; another engine needs another one."""
    serve = config.serve or ServeConfig()
    return {
        "model": config.fleet.model,
        "dtype": serve.dtype,
        "device": serve.device,
        "cpu_share": serve.cpu_share,
        "steady": serve.steady,
        "workers": sum(group.count * (2 if group.role == "semi_pd" else 1) for group in config.fleet.groups),
    }


def _limits(spec: InstanceSpec) -> Limits:
    pool_tokens = spec.kv_blocks * spec.block_tokens
    return Limits(spec.max_batch_tokens, spec.max_sequences, min(spec.max_request_tokens, pool_tokens), pool_tokens)


def add_live_runs(config: RunConfig, path: Path, runs: Sequence[Path]) -> dict[str, Any]:
    """Add to the profile in ``path`` what live runs of the same fleet say: the durations of iterations whose plans were
    recorded (serve.record.decisions: all), the gaps between them, delays. Returns the new content.

    Raises ConfigError where the runs are too short, EventLogError where one is none.
    """
    from reference_impl.metrics import read

    logs = [read(run / EVENTS) for run in runs]
    found = overheads(logs, build_live(config, None).instances[0].kv_bytes_per_token)
    if found is None:
        raise ConfigError(f"{runs[0]}: too few iterations to read gaps from; take a longer live run")
    iterations = [iteration for run in runs for iteration in live_iterations(run)]
    content = with_live_runs(json.loads(path.read_text(encoding="utf-8")), iterations, found)
    write_profile(path, content)
    return content
