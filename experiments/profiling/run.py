"""``semiflow profile``: from a configuration to a profile's file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_serve import ServeConfig
from experiments.profiling.measure import Pool, measure
from experiments.profiling.notes import Notes
from experiments.profiling.overheads import overheads
from experiments.profiling.result import add_overheads, profile_json
from experiments.profiling.shapes import Limits, shapes
from experiments.profiling.workers import workers
from experiments.run_folder import write_json
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
    device = {
        "model": config.fleet.model,
        "dtype": serve.dtype,
        "device": serve.device,
        "cpu_share": serve.cpu_share,
        "workers": sum(
            2 if group.role == "semi_pd" else 1 for group in config.fleet.groups for _ in range(group.count)
        ),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    cores = {"instance_cores": serve.instance_cores, "other_cores": serve.other_cores}
    notes = Notes(path.with_name(f"{path.name}.notes"), {**device, **cores, "rounds": rounds}, wanted)
    with workers(config) as executors:
        notes.keep(measure(executors, Pool(spec.kv_blocks, spec.block_tokens), wanted, rounds, notes.timings, progress))
    content = profile_json(device, wanted, notes.timings)
    write_json(path, content)
    notes.remove()
    return content


def _limits(spec: InstanceSpec) -> Limits:
    pool_tokens = spec.kv_blocks * spec.block_tokens
    return Limits(spec.max_batch_tokens, spec.max_sequences, min(spec.max_request_tokens, pool_tokens), pool_tokens)


def add_live_run(config: RunConfig, path: Path, run: Path) -> dict[str, Any]:
    """Add to the profile in ``path`` what the event log of a live run says of gaps and delays; returns the new content.

    Raises ConfigError where the run is too short, EventLogError where it is none.
    """
    from experiments.run import EVENTS
    from reference_impl.metrics import read

    events = run / EVENTS if run.is_dir() else run
    found = overheads(read(events), build_live(config, None).instances[0].kv_bytes_per_token)
    if found is None:
        raise ConfigError(f"{run}: too few iterations to read gaps from; take a longer live run")
    content = add_overheads(json.loads(path.read_text(encoding="utf-8")), found)
    write_json(path, content)
    return content
