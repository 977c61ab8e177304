"""One run: a configuration in, a folder out (config, manifest, event log, metrics)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import RunConfig
from experiments.config_build import build_cluster, build_contention, build_trace, check_traffic
from experiments.config_file import to_yaml
from experiments.decisions import Recorded, recording
from experiments.manifest import environment, semiflow_version
from experiments.run_folder import RUN_FILES, new_folder, write_json

if TYPE_CHECKING:
    from reference_impl.core.spec import ClusterSpec
    from reference_impl.metrics import RunLog
    from reference_impl.simulator import Summary
    from workloads.trace import Trace

CONFIG, MANIFEST, EVENTS, METRICS, VLLM_BENCH = RUN_FILES
_COUNTS = frozenset(
    {"arrived", "completed", "rejected", "unfinished", "preemptions", "warmup_requests", "load_growing"}
    | {"rejected_prompt_tokens", "rejected_output_tokens", "recomputed_tokens"}
)
Progress = Callable[[int, int], None]
"""Called now and then with (requests done, requests in all)."""


@dataclass(frozen=True)
class RunResult:
    """What came of a run; the folder holds the same and the event log."""

    folder: Path
    summary: Summary
    metrics: Mapping[str, float]
    manifest: Mapping[str, Any]


def execute(
    config: RunConfig,
    out: Path,
    progress: Progress | None = None,
    *,
    force: bool = False,
    decisions: Recorded = "none",
) -> RunResult:
    """Simulate ``config`` into the folder ``out``, which appears complete or not at all. ``decisions`` are recorded.

    Raises ConfigError if ``out`` is taken (unless ``force``), TraceError, UnknownPolicy, ParameterError or
    ProfileError for what the configuration names, PolicyError for a decision that the host cannot follow.
    """
    with new_folder(out, force) as folder:
        started = time.perf_counter(), time.process_time()
        trace, cluster = build_trace(config.workload, config.seed), build_cluster(config)
        check_traffic(trace, cluster)
        with recording(cluster, config, folder, decisions) as watched:
            summary = simulate_to(folder / EVENTS, config, watched, trace, progress)
        spent = {"wall_s": time.perf_counter() - started[0], "cpu_s": time.process_time() - started[1]}
        metrics = write_metrics(folder)
        manifest = {
            **environment(),
            "seed": config.seed,
            **spent,
            **_provenance(config, cluster, trace),
            "outcome": asdict(summary),
            **_too_long(cluster, trace),
        }
        (folder / CONFIG).write_text(to_yaml(config), encoding="utf-8")
        write_json(folder / MANIFEST, manifest)
    return RunResult(out, summary, metrics, manifest)


def simulate_to(
    events: Path, config: RunConfig, cluster: ClusterSpec, trace: Trace, progress: Progress | None = None
) -> Summary:
    """Simulate ``cluster``, built from ``config``, under ``trace``; the event log ``events`` is written atomically."""
    from reference_impl.events import EventLog
    from reference_impl.simulator import simulate

    total = len(trace)
    report = None if progress is None else lambda done: progress(done, total)
    with EventLog(events, log_metadata(config, cluster, trace)) as log:
        return simulate(cluster, trace, log, closed_loop=config.workload.closed_loop, progress=report)


def simulated_log(cluster: ClusterSpec, trace: Trace, metadata: Mapping[str, Any], *, fast: bool = True) -> RunLog:
    """Simulate and read what was logged, keeping nothing; ``fast=False``: every iteration is a row."""
    from reference_impl.events import EventLog
    from reference_impl.metrics import read
    from reference_impl.simulator import simulate

    with tempfile.TemporaryDirectory(prefix="semiflow-") as scratch:
        events = Path(scratch) / EVENTS
        with EventLog(events, {"schema_version": 1, **metadata}) as log:
            simulate(cluster, trace, log, fast=fast)
        return read(events)


def log_metadata(config: RunConfig, cluster: ClusterSpec, trace: Trace) -> dict[str, Any]:
    """The event log's own account of what it records, so that it can be read without its folder."""
    from reference_impl.request_labels import packed

    return {
        "schema_version": 1,
        "version": semiflow_version(),
        "trace": {"name": trace.name, "requests": len(trace), "metadata": dict(trace.metadata)},
        "seed": config.seed,
        "model": config.fleet.model,
        "slo": config.slo.logged() if config.slo else None,
        "offered_rps": None if config.workload.closed_loop else trace.mean_rate_rps,
        "instances": [
            {
                "id": number,
                "role": instance.role,
                "kv_blocks": instance.kv_blocks,
                "block_tokens": instance.block_tokens,
                "max_sequences": instance.max_sequences,
                "devices": instance.devices,
                "latency": instance.latency.name,
                "provenance": instance.latency.provenance,
            }
            for number, instance in enumerate(cluster.instances)
        ],
        "policies": config.policies.model_dump(),
        **logged_price(config),
        **packed({"tenant": trace.tenant, "slo_class": trace.slo_class}),
    }


def logged_price(config: RunConfig) -> dict[str, float]:
    """What an event log says of the devices' price, if the configuration does."""
    price = config.fleet.price_per_device_hour
    return {} if price is None else {"price_per_device_hour": price}


def write_metrics(folder: Path) -> Mapping[str, float]:
    """Every figure of the event log in ``folder``, written beside it."""
    from reference_impl.metrics import read, summarise, vllm_bench_json

    run = read(folder / EVENTS)
    metrics = whole_counts(summarise(run))
    write_json(folder / METRICS, metrics)
    write_json(folder / VLLM_BENCH, vllm_bench_json(run))
    return metrics


def whole_counts(figures: Mapping[str, float]) -> dict[str, float]:
    """Counts as whole numbers, of the run and of its groups."""
    return {key: int(value) if key.split("[")[0] in _COUNTS else value for key, value in figures.items()}


def _too_long(cluster: ClusterSpec, trace: Trace) -> dict[str, int]:
    """The largest request that any instance takes, and how many requests are larger, which are rejected."""
    limit = max(instance.max_request_tokens for instance in cluster.instances)
    total = trace.prompt_tokens.astype("int64") + trace.output_tokens
    return {"max_request_tokens": limit, "too_long_requests": int((total > limit).sum())}


def _provenance(config: RunConfig, cluster: ClusterSpec, trace: Trace) -> dict[str, Any]:
    models = {instance.latency.name: instance.latency.provenance for instance in cluster.instances}
    if any(instance.role == "semi_pd" for instance in cluster.instances):
        models["lanes that share a device"] = build_contention(config.contention).provenance
    return {"trace": {"name": trace.name, **trace.metadata}, "cost_models": models}
