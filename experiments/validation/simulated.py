"""A recorded vLLM run, simulated: one colocated instance with its engine settings, its profile and its requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config_base import ConfigError
from experiments.run import simulated_log
from experiments.vllm_run import EngineSettings, Record

if TYPE_CHECKING:
    from reference_impl.core.fleet_events import Slow
    from reference_impl.core.spec import ClusterSpec, InstanceSpec
    from reference_impl.latency.measured import Measured
    from reference_impl.latency.profiled import Profiled
    from reference_impl.metrics import RunLog
    from workloads.trace import Trace

PROFILE = "profile.json"
"""The measured steps of the engine itself."""


def simulated(instance: InstanceSpec, record: Record, slowness: Sequence[Slow] = (), *, fast: bool = True) -> RunLog:
    """The event log of the run's requests on this instance; ``fast=False``: one row for each iteration.

    ``slowness``: how the machine's speed changed meanwhile, where that was measured.

    Raises ConfigError where requests are refused.
    """
    pools = [{"id": 0, "role": instance.role, "kv_blocks": instance.kv_blocks}]
    run = simulated_log(_alone(instance, slowness), _trace(record, instance), {"instances": pools}, fast=fast)
    refused = len(record.queued_s) - len(run.rows["finish"])
    if refused:
        raise ConfigError(
            f"{refused} of the run's requests are refused in the simulation: they "
            f"exceed {instance.max_request_tokens} tokens, which is what its context and KV pool allow"
        )
    return run


def _alone(instance: InstanceSpec, slowness: Sequence[Slow]) -> ClusterSpec:
    """A deployment of this one instance."""
    from policies.registry import PolicySpec
    from reference_impl.core.spec import ClusterSpec, Link

    return ClusterSpec(
        instances=(instance,),
        dispatch=PolicySpec.parse("round_robin", kind="dispatch").build(0),
        scaling=PolicySpec.parse("fixed", kind="scaling").build(0),
        link=Link(1e12),
        events=tuple(slowness),
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


def instance_of(root: Path, settings: EngineSettings) -> InstanceSpec:
    """One colocated instance with the run's engine settings and its profile as the cost model."""
    from policies.registry import PolicySpec
    from reference_impl.core.spec import InstanceSpec
    from reference_impl.latency import ContentionModel

    latency = _cost_model(root, settings.tensor_parallel_size)
    kv_blocks, max_context_tokens, kv_bytes_per_token = _sizes(root, settings, latency)
    return InstanceSpec(
        role="colocated",
        latency=latency,
        contention=ContentionModel(),
        kv_blocks=kv_blocks,
        kv_bytes_per_token=kv_bytes_per_token,
        max_context_tokens=max_context_tokens,
        batch=PolicySpec.parse("unified_budget", kind="batch"),
        block_tokens=settings.block_tokens,
        max_sequences=settings.max_num_seqs,
        max_batch_tokens=settings.max_num_batched_tokens,
        prefix_caching=settings.prefix_caching,
        devices=settings.tensor_parallel_size,
    )


def _cost_model(root: Path, tp: int) -> Profiled | Measured:
    """Of the engine's own steps where they were measured, else of its operators."""
    from reference_impl.latency.llmservingsim import read_profile
    from reference_impl.latency.measured import read_measured
    from reference_impl.latency.profiled import Profiled

    if (root / PROFILE).is_file():
        return read_measured(root / PROFILE)
    return Profiled(read_profile(root, tp), tp)


def _sizes(root: Path, settings: EngineSettings, latency: Profiled | Measured) -> tuple[int, int, float]:
    """KV blocks, longest context in tokens, KV bytes of a token (of no effect with one instance)."""
    from reference_impl.latency.measured import Measured

    if not isinstance(latency, Measured):
        blocks = settings.kv_blocks or _computed_kv_blocks(root, settings, latency)
        longest = settings.max_model_len or latency.model.max_context_tokens
        return blocks, longest, latency.model.kv_bytes_per_token
    if settings.kv_blocks is None or settings.max_model_len is None:
        raise ConfigError(
            f"{root / 'meta.json'} needs kv_cache.num_gpu_blocks and resolved_config.model_config.max_model_len: "
            f"{PROFILE} beside it does not know the model; record the run with semiflow validate vllm-record"
        )
    return settings.kv_blocks, settings.max_model_len, 1.0


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
