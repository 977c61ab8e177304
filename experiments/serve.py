"""A live deployment for as long as it is wanted, and the folder of the run that it was."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_file import to_yaml
from experiments.config_serve import ServeConfig
from experiments.manifest import environment, semiflow_version
from experiments.run import CONFIG, EVENTS, MANIFEST, logged_price, write_metrics
from experiments.run_folder import REQUESTS, SPOOL, keep_unfinished, new_folder, write_json
from experiments.serve_build import build_live

if TYPE_CHECKING:
    from reference_impl.serve.launch import Running
    from reference_impl.serve.messages import Status
    from reference_impl.serve.ray_cluster import Cluster
    from reference_impl.serve.spec import LiveSpec

_PACKAGES = ("torch", "transformers", "ray", "fastapi")
_CUT_SHORT = {"log_error": "the run was cut short; what came last is missing"}


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

    ``report`` is told what happens. ``cluster``: Ray, where it is up already. From the end of the context on a signal
    interrupts nothing. On an error what was recorded is kept beside ``out``, see :func:`finish`. Raises ConfigError,
    LaunchError, EngineError, or what ``build_live`` raises.
    """
    from reference_impl.serve.launch import launched, undisturbed

    serve = config.serve or ServeConfig()
    with contextlib.ExitStack() as calm, _folder(out, report, force=force) as folder:
        started_s = time.perf_counter()
        spec = build_live(config, folder)
        _check_front_door(spec)
        _check_scaling(spec)
        cores = serve.other_cores
        with launched(spec, report, cores=cores, dashboard=serve.dashboard, cluster=cluster) as running:
            if folder is not None:
                _begin(folder, config, spec)
            try:
                yield running
            finally:
                calm.enter_context(undisturbed(report))
            status = running.drain()
        if folder is not None:
            finish(folder, _outcome(running, status, time.perf_counter() - started_s))
            (folder / SPOOL).unlink(missing_ok=True)


def finish(folder: Path, outcome: Mapping[str, Any] = _CUT_SHORT) -> None:
    """Make a run's folder of what a live run left: its rows become event log, requests and metrics.

    The rows stay: a deployment may still be adding to them. Raises ConfigError where they are not all that it takes.
    """
    try:
        begun = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        metadata = begun["event_log"]
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder}: has no {MANIFEST} of a live run beside its {SPOOL}; it was not up yet") from error
    found = _collected(folder, metadata) if metadata is not None else {}
    write_json(folder / MANIFEST, {**begun, **outcome, "outcome": found, "cost_models": {}})


def check(config: RunConfig) -> LiveSpec:
    """Everything that can be found wrong with a configuration without starting anything."""
    spec = build_live(config, None)
    _check_front_door(spec)
    _check_scaling(spec)
    return spec


def _check_front_door(spec: LiveSpec) -> None:
    """Raises SettingsError for a keys file or a tokenizer that cannot be used."""
    from reference_impl.engine.model_facts import model_folder
    from reference_impl.serve.http.auth import load_keys
    from reference_impl.serve.http.tokenizer import load_tokenizer

    load_keys(spec.http.keys_file)
    if spec.engine is not None:
        load_tokenizer(model_folder(spec.engine.source.path), spec.http.vocab_size)


def _check_scaling(spec: LiveSpec) -> None:
    """Raises ConfigError for a policy that says nonsense of when it wants to be asked."""
    interval_s = spec.scaling.build(spec.seed).interval_s
    if interval_s is not None and not (type(interval_s) in (int, float) and 0 < interval_s < math.inf):
        raise ConfigError(
            f"policies.scaling {spec.scaling}: interval_s is {interval_s!r}; allowed: seconds above 0, or None"
        )


def _outcome(running: Running, status: Status | None, wall_s: float) -> dict[str, Any]:
    log_error = status.log_error if status is not None else "the processes did not hand in their last rows"
    return {"wall_s": wall_s, "ready_s": running.ready_s, **({"log_error": log_error} if log_error else {})}


def _folder(
    out: Path | None, report: Callable[[str], None], *, force: bool
) -> contextlib.AbstractContextManager[Path | None]:
    if out is None:
        return contextlib.nullcontext()
    return new_folder(out, force, partial(_rescue, out, report))


def _rescue(out: Path, report: Callable[[str], None], folder: Path) -> None:
    """Keep the folder of a deployment that was up."""
    if (folder / MANIFEST).exists():
        kept = keep_unfinished(folder, out)
        report(f"what was recorded is kept in {kept}; finish it with: semiflow record {kept} --out FILE.parquet")


def _begin(folder: Path, config: RunConfig, spec: LiveSpec) -> None:
    """Write what :func:`finish` needs, whoever calls it: this process may be killed."""
    (folder / CONFIG).write_text(to_yaml(config), encoding="utf-8")
    manifest = {
        **environment(),
        "packages_live": {name: version(name) for name in _PACKAGES},
        "host": "live",
        "seed": config.seed,
        "event_log": _metadata(config, spec) if spec.logs else None,
    }
    write_json(folder / MANIFEST, manifest)


def _collected(folder: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Write event log, requests and metrics; what was recorded is kept even where nothing can be computed of it."""
    from reference_impl.metrics.log import EventLogError
    from reference_impl.serve.collect import collect

    collected = collect(folder / SPOOL, folder / EVENTS, folder / REQUESTS, metadata)
    found: dict[str, Any] = collected._asdict()
    try:
        if collected.requests:
            write_metrics(folder)
    except (EventLogError, ValueError) as error:
        found["metrics_error"] = str(error)
    return found


def _metadata(config: RunConfig, spec: LiveSpec) -> dict[str, Any]:
    """The event log's own account, as that of a simulated run."""
    return {
        "schema_version": 1,
        "version": semiflow_version(),
        "host": "live",
        "trace": {"name": "live", "metadata": {}},
        "seed": config.seed,
        "model": config.fleet.model,
        "slo": config.slo.logged() if config.slo else None,
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
        **logged_price(config),
    }
