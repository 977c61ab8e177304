"""Hold the simulator against a real vLLM run: same requests, engine settings and hardware profile, nothing fitted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from experiments.config_base import ConfigError
from experiments.vllm_run import EngineSettings, Record, read_requests, read_settings

if TYPE_CHECKING:
    from numpy import float64, int32
    from numpy.typing import NDArray

    from reference_impl.core.spec import ClusterSpec, InstanceSpec
    from reference_impl.latency import Profiled
    from workloads.trace import Trace

    Floats = NDArray[float64]


class Comparison(TypedDict):
    """One figure of the real run and of its simulation."""

    metric: str
    statistic: str
    unit: str
    real: float
    simulated: float
    relative_error: float
    """Signed fraction of the real figure."""


@dataclass(frozen=True)
class Latencies:
    """Per request, counted from the moment it was queued."""

    ttft_s: Floats
    tpot_s: Floats
    """Only of requests with more than one token."""
    e2e_s: Floats

    @classmethod
    def of(cls, queued_s: Floats, first_token_s: Floats, last_token_s: Floats, tokens: NDArray[int32]) -> Latencies:
        """From moments and output lengths, arrays of equal length."""
        several = tokens > 1
        tpot_s = (last_token_s - first_token_s)[several] / (tokens[several] - 1)
        return cls(first_token_s - queued_s, tpot_s, last_token_s - queued_s)


def validate_vllm_run(folder: str | Path) -> list[Comparison]:
    """Simulate the run in ``folder`` and compare mean and P90 TTFT, mean TPOT and mean E2E.

    Times count from ``queued_ts``; percentiles are linear. Raises ConfigError for the run's files and ProfileError
    for its hardware profile, naming file, line or key and what is allowed.
    """
    root = Path(folder)
    settings, record = read_settings(root / "meta.json"), read_requests(root / "requests.jsonl")
    real = Latencies.of(record.queued_s, record.first_token_s, record.last_token_s, record.output_tokens)
    return compare(real, _simulate(_instance(root, settings), record))


def compare(real: Latencies, simulated: Latencies) -> list[Comparison]:
    """The four figures. Means, and numpy's default percentile."""
    return [
        _compared("ttft", "mean", "s", real.ttft_s, simulated.ttft_s),
        _compared("ttft", "p90", "s", real.ttft_s, simulated.ttft_s),
        _compared("tpot", "mean", "ms", 1e3 * real.tpot_s, 1e3 * simulated.tpot_s),
        _compared("e2e", "mean", "s", real.e2e_s, simulated.e2e_s),
    ]


def _compared(metric: str, statistic: str, unit: str, real: Floats, simulated: Floats) -> Comparison:
    import numpy as np

    def reduce(values: Floats) -> float:
        return float(np.mean(values) if statistic == "mean" else np.percentile(values, 90))

    measured, modelled = reduce(real), reduce(simulated)
    error = modelled / measured - 1
    return Comparison(
        metric=metric, statistic=statistic, unit=unit, real=measured, simulated=modelled, relative_error=error
    )


def _simulate(instance: InstanceSpec, record: Record) -> Latencies:
    from reference_impl.events import EventLog
    from reference_impl.metrics import per_request, read
    from reference_impl.simulator import simulate

    with tempfile.TemporaryDirectory() as scratch:
        events = Path(scratch) / "events.parquet"
        with EventLog(events, {"schema_version": 1}) as log:
            summary = simulate(_alone(instance), _trace(record, instance), log)
        table = per_request(read(events))
    if summary.finished != len(record.queued_s):
        raise ConfigError(
            f"{len(record.queued_s) - summary.finished} of the run's requests are refused in the simulation: they "
            f"exceed {instance.max_request_tokens} tokens, which is what its context and KV pool allow"
        )
    return Latencies.of(table.arrival_s, table.first_token_s, table.finish_s, record.output_tokens)


def _alone(instance: InstanceSpec) -> ClusterSpec:
    """A deployment of this one instance."""
    from policies.registry import PolicySpec
    from reference_impl.core.spec import ClusterSpec, Link

    return ClusterSpec(
        instances=(instance,),
        dispatch=PolicySpec.parse("round_robin", kind="dispatch").build(0),
        scaling=PolicySpec.parse("fixed", kind="scaling").build(0),
        link=Link(1e12),
    )


def _trace(record: Record, instance: InstanceSpec) -> Trace:
    """The run's requests.

    Under prefix caching every whole prompt block has an id of its own: a preempted request may find its prompt again,
    as in vLLM. No two requests share a block, since the record does not hold their tokens.
    """
    from workloads.trace import Trace

    ids: list[tuple[int, ...]] = []
    first = 0
    for tokens in record.prompt_tokens.tolist():
        last = first + tokens // instance.block_tokens
        ids.append(tuple(range(first, last)))
        first = last
    return Trace(
        name="vllm-run",
        arrival_s=record.queued_s,
        prompt_tokens=record.prompt_tokens,
        output_tokens=record.output_tokens,
        prefix_ids=tuple(ids) if instance.prefix_caching else None,
        prefix_block_tokens=instance.block_tokens if instance.prefix_caching else None,
    )


def _instance(root: Path, settings: EngineSettings) -> InstanceSpec:
    """One colocated instance with the run's engine settings and its profile as the cost model."""
    from policies.registry import PolicySpec
    from reference_impl.core.spec import InstanceSpec
    from reference_impl.latency import ContentionModel, Profiled, read_profile

    tp = settings.tensor_parallel_size
    latency = Profiled(read_profile(root, tp), tp)
    return InstanceSpec(
        role="colocated",
        latency=latency,
        contention=ContentionModel(),
        kv_blocks=settings.kv_blocks or _computed_kv_blocks(root, settings, latency),
        kv_bytes_per_token=latency.model.kv_bytes_per_token,
        max_context_tokens=settings.max_model_len or latency.model.max_context_tokens,
        batch=PolicySpec.parse("unified_budget", kind="batch"),
        block_tokens=settings.block_tokens,
        max_sequences=settings.max_num_seqs,
        max_batch_tokens=settings.max_num_batched_tokens,
        prefix_caching=settings.prefix_caching,
        devices=tp,
    )


def _computed_kv_blocks(root: Path, settings: EngineSettings, latency: Profiled) -> int:
    """What memory, weights and vLLM's memory fraction leave, where the run did not record it."""
    from reference_impl.latency import kv_pool_blocks

    if latency.hardware is None:
        raise ConfigError(
            f"{root / 'meta.json'} has no kv_cache.num_gpu_blocks, and the profile's hardware "
            f"{latency.profile.device!r} is unknown; give the number of KV blocks"
        )
    return kv_pool_blocks(
        latency.hardware,
        latency.model,
        settings.tensor_parallel_size,
        block_tokens=settings.block_tokens,
        memory_fraction=settings.memory_fraction,
    )
