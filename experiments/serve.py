"""A live deployment for as long as it is wanted, and the folder of the run that it was."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import RunConfig
from experiments.config_file import to_yaml
from experiments.config_serve import ServeConfig
from experiments.manifest import environment, semiflow_version
from experiments.run import CONFIG, EVENTS, MANIFEST, write_metrics
from experiments.run_folder import REQUESTS, new_folder, write_json
from experiments.serve_build import build_live

if TYPE_CHECKING:
    from reference_impl.serve.launch import Running
    from reference_impl.serve.messages import Status
    from reference_impl.serve.ray_cluster import Cluster
    from reference_impl.serve.spec import LiveSpec

_PACKAGES = ("torch", "transformers", "ray", "fastapi")


def _quiet(_line: str) -> None:
    """Nobody listens."""


@contextlib.contextmanager
def live_deployment(
    config: RunConfig,
    out: Path | None = None,
    report: Callable[[str], None] = _quiet,
    *,
    force: bool = False,
    cluster: Cluster | None = None,
) -> Iterator[Running]:
    """A deployment that is ready (see its ``url``), gone afterwards; then ``out`` is a run's folder.

    ``report`` is told what happens. ``cluster``: Ray, where it is up already. Raises ConfigError, LaunchError,
    EngineError, or what ``build_live`` raises.
    """
    from reference_impl.serve.launch import launched

    serve = config.serve or ServeConfig()
    with new_folder(out, force) if out is not None else contextlib.nullcontext() as folder:
        started_s = time.perf_counter()
        spec = build_live(config, folder)
        _check_front_door(spec)
        cores = serve.other_cores
        with launched(spec, report, cores=cores, dashboard=serve.dashboard, cluster=cluster) as running:
            yield running
            status = running.drain()
        if folder is not None:
            _write(folder, config, spec, _outcome(running, status, time.perf_counter() - started_s))


def check(config: RunConfig) -> LiveSpec:
    """Everything that can be found wrong with a configuration without starting anything."""
    spec = build_live(config, None)
    _check_front_door(spec)
    return spec


def _check_front_door(spec: LiveSpec) -> None:
    """Raises SettingsError for a keys file or a tokenizer that cannot be used."""
    from reference_impl.engine.model_facts import model_folder
    from reference_impl.serve.http.auth import load_keys
    from reference_impl.serve.http.tokenizer import load_tokenizer

    load_keys(spec.http.keys_file)
    if spec.engine is not None:
        load_tokenizer(model_folder(spec.engine.source.path), spec.http.vocab_size)


def _outcome(running: Running, status: Status | None, wall_s: float) -> dict[str, Any]:
    log_error = status.log_error if status is not None else "the processes did not hand in their last rows"
    return {"wall_s": wall_s, "ready_s": running.ready_s, **({"log_error": log_error} if log_error else {})}


def _write(folder: Path, config: RunConfig, spec: LiveSpec, outcome: Mapping[str, Any]) -> None:
    """The run's files, like a simulated run's."""
    from reference_impl.serve.collect import collect

    (folder / CONFIG).write_text(to_yaml(config), encoding="utf-8")
    found: dict[str, Any] = {}
    if spec.record is not None and spec.record.events:
        collected = collect(spec.record.spool, folder / EVENTS, folder / REQUESTS, _metadata(config, spec))
        found = collected._asdict()
        spec.record.spool.unlink(missing_ok=True)
        found |= _measured(folder, spec) if collected.requests else {}
    manifest = {
        **environment(),
        "packages_live": {name: version(name) for name in _PACKAGES},
        "host": "live",
        "seed": config.seed,
        **outcome,
        "outcome": found,
        "cost_models": {},
    }
    write_json(folder / MANIFEST, manifest)


def _measured(folder: Path, spec: LiveSpec) -> dict[str, str]:
    """Write the metrics; what was recorded is kept even where nothing can be computed of it."""
    from reference_impl.metrics.log import EventLogError

    try:
        write_metrics(folder, spec.slo)
    except (EventLogError, ValueError) as error:
        return {"metrics_error": str(error)}
    return {}


def _metadata(config: RunConfig, spec: LiveSpec) -> dict[str, Any]:
    """The event log's own account, as that of a simulated run."""
    return {
        "schema_version": 1,
        "version": semiflow_version(),
        "host": "live",
        "trace": {"name": "live", "metadata": {}},
        "seed": config.seed,
        "model": config.fleet.model,
        "slo": config.slo.model_dump() if config.slo else None,
        "instances": [
            {
                "id": number,
                "role": instance.role,
                "kv_blocks": instance.kv_blocks,
                "block_tokens": instance.block_tokens,
                "max_sequences": instance.max_sequences,
                "devices": instance.devices,
            }
            for number, instance in enumerate(spec.instances)
        ],
        "policies": config.policies.model_dump(),
    }
