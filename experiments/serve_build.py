"""From a configuration to a live deployment: the policies and instances that the simulator gets, on real workers."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config import RunConfig
from experiments.config_base import ConfigError
from experiments.config_build import build_contention, build_slo
from experiments.config_serve import ServeConfig
from experiments.hosts import refuse_simulated_only
from experiments.weights_folder import weights_folder

if TYPE_CHECKING:
    from policies.registry import PolicySpec
    from reference_impl.core.spec import InstanceSpec
    from reference_impl.engine.model_facts import ModelFacts
    from reference_impl.engine.task_executor import TaskSettings
    from reference_impl.latency.api import LatencyModel
    from reference_impl.serve.http.settings import HttpSettings
    from reference_impl.serve.spec import EngineSpec, LiveSpec

_CORE_FLOPS = 5e10
_CORE_BYTES_PER_S = 1e10
_ITERATION_S = 2e-3
"""Of one core, by order of magnitude: for policies that predict, where nothing was measured."""
_KV_MEMORY = 0.5
"""Part of the memory for shared files that the KV pools may take where their size is not configured."""


def build_live(config: RunConfig, record: Path | None) -> LiveSpec:
    """The deployment that ``config`` describes, new to this host; ``record`` is the folder for what is kept of it.

    Raises ConfigError, EngineError, SettingsError, UnknownPolicy, ParameterError or ProfileError.
    """
    from policies.registry import PolicySpec
    from reference_impl.engine.model_facts import model_folder, read_facts
    from reference_impl.serve.spec import LiveSpec, Record

    refuse_simulated_only(config)
    serve = config.serve or ServeConfig()
    facts = read_facts(model_folder(config.fleet.model))
    instances = _instances(config, serve, facts)
    scaling = PolicySpec.parse(config.policies.scaling, kind="scaling")
    run = f"{os.getpid()}_{secrets.token_hex(3)}"
    return LiveSpec(
        run=run,
        folder=Path(tempfile.gettempdir()) / f"semiflow-{run}",
        epoch_s=time.monotonic(),
        token=secrets.token_hex(16),
        instances=instances,
        dispatch=PolicySpec.parse(config.policies.dispatch, kind="dispatch"),
        scaling=scaling,
        predictor=_predictor(config),
        http=_http(config, serve, facts, instances),
        port=serve.port,
        seed=config.seed,
        front_doors=serve.front_doors,
        job_executors=config.host.job_executors,
        prefix_block_tokens=_prefix_block_tokens(config, serve),
        task=_task(config, serve),
        report_period_s=config.host.report_period_s,
        report_delay_s=config.host.report_delay_s,
        slo=build_slo(config.slo),
        max_instances=config.fleet.max_instances,
        max_failures=serve.attempts - 1,
        record=Record(record, serve.record.events, serve.record.decisions) if record is not None else None,
        engine=_engine(config, serve),
        import_paths=(os.getcwd(),),
    )


def _instances(config: RunConfig, serve: ServeConfig, facts: ModelFacts) -> tuple[InstanceSpec, ...]:
    from policies.registry import PolicySpec
    from reference_impl.core.spec import InstanceSpec

    fleet = config.fleet
    if any(fleet.of(group) != fleet for group in fleet.groups):
        raise ConfigError(
            "fleet.groups: hardware, tp, pp, hardware_profile and kv_blocks of a group are for the simulator; live "
            "instances are all alike; leave them out"
        )
    layout = facts.kv_layout(fleet.block_tokens, serve.dtype)
    batch = PolicySpec.parse(config.policies.batch, kind="batch")
    partition = PolicySpec.parse(config.policies.partition, kind="partition")
    if partition.name != "none":
        raise ConfigError(f"policies.partition {partition} is not carried out live in this version; allowed: none")
    latency = _latency(config, facts)
    kv_blocks = _kv_blocks(config, serve, facts, layout.block_bytes)
    try:
        return tuple(
            InstanceSpec(
                role=group.role,
                latency=latency,
                contention=build_contention(config.contention),
                kv_blocks=kv_blocks,
                kv_bytes_per_token=layout.bytes_per_token,
                max_context_tokens=facts.max_context_tokens,
                batch=batch,
                partition=partition if group.role == "semi_pd" else None,
                block_tokens=fleet.block_tokens,
                max_sequences=fleet.max_sequences,
                max_batch_tokens=fleet.max_batch_tokens,
                prefix_caching=fleet.prefix_caching,
            )
            for group in fleet.groups
            for _ in range(group.count)
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _latency(config: RunConfig, facts: ModelFacts) -> LatencyModel:
    """What policies that predict are told: the measured profile, or a rough guess."""
    if config.fleet.hardware_profile is not None:
        from experiments.config_costs import build_costs

        return build_costs(config.fleet.model_copy(update={"kv_blocks": 1}))[0]
    from reference_impl.latency import DecodeFit, Linear

    hidden = facts.heads * facts.head_dim
    parameters = facts.layers * 12 * hidden**2 + 2 * facts.vocab_tokens * hidden
    weights_s = 4 * parameters / _CORE_BYTES_PER_S
    token_s = 2 * parameters / _CORE_FLOPS
    decodes = DecodeFit(_ITERATION_S + weights_s, per_sequence_s=token_s)
    guess = "one core by order of magnitude; uncalibrated (semiflow profile measures it)"
    return Linear(_ITERATION_S + weights_s, token_s, 0.0, (decodes,), name="rough guess", provenance=guess)


def _kv_blocks(config: RunConfig, serve: ServeConfig, facts: ModelFacts, block_bytes: int) -> int:
    """As configured; else for the concurrency at the longest context, or what the shared memory has room for."""
    from reference_impl.engine.shared_files import shared_folder

    fleet = config.fleet
    if serve.device == "cuda":
        if fleet.kv_blocks is None:
            raise ConfigError("fleet.kv_blocks is not given; on cuda it has to be: what the device has room for")
        return fleet.kv_blocks
    memory = os.statvfs(shared_folder())
    room = memory.f_bavail * memory.f_frsize // (fleet.instances * block_bytes)
    if fleet.kv_blocks is not None and fleet.kv_blocks <= room:
        return fleet.kv_blocks
    share = int(_KV_MEMORY * room)
    if fleet.kv_blocks is not None or share < 1:
        raise ConfigError(
            f"fleet.kv_blocks {fleet.kv_blocks} for each of {fleet.instances} instances, {block_bytes} bytes a block: "
            f"{shared_folder()} has room for {room}; lower fleet.kv_blocks, or free some of it"
        )
    wanted = fleet.max_sequences * -(-facts.max_context_tokens // fleet.block_tokens)
    return min(wanted, share)


def _predictor(config: RunConfig) -> PolicySpec:
    from policies.registry import PolicySpec

    predictor = PolicySpec.parse(config.policies.predictor, kind="prediction")
    if predictor.build(config.seed).oracle:
        raise ConfigError(
            f"policies.predictor {predictor} knows the future; allowed live: predictors that are no oracle"
        )
    return predictor


def _prefix_block_tokens(config: RunConfig, serve: ServeConfig) -> int:
    block_tokens = config.fleet.block_tokens
    given = serve.prefix_block_tokens or block_tokens
    if given % block_tokens:
        raise ConfigError(
            f"serve.prefix_block_tokens is {given}, a KV block has {block_tokens} tokens; allowed: whole KV blocks"
        )
    return given


def _http(config: RunConfig, serve: ServeConfig, facts: ModelFacts, instances: Sequence[InstanceSpec]) -> HttpSettings:
    from reference_impl.serve.http.settings import HttpSettings

    limits = serve.limits
    return HttpSettings(
        model=Path(config.fleet.model).name,
        context_tokens=min(facts.max_context_tokens, max(instance.max_request_tokens for instance in instances)),
        vocab_size=facts.vocab_tokens,
        host=serve.host,
        keys_file=serve.keys_file,
        open_to_all=serve.auth.open_to_all,
        max_body_bytes=limits.max_body_bytes,
        max_prompt_tokens=limits.max_prompt_tokens,
        max_concurrent=limits.max_concurrent_requests,
        max_concurrent_per_tenant=limits.max_concurrent_per_tenant,
        request_timeout_s=limits.request_timeout_s,
    )


def _task(config: RunConfig, serve: ServeConfig) -> TaskSettings:
    from reference_impl.engine.post import HandoverSettings
    from reference_impl.engine.task_executor import TaskSettings

    given = serve.handover
    handover = HandoverSettings(given.transport, given.granularity, given.timeout_s)
    return TaskSettings(config.host.plan_ahead, serve.stall_timeout_s, handover)


def _engine(config: RunConfig, serve: ServeConfig) -> EngineSpec:
    from reference_impl.engine.weights import ModelSource
    from reference_impl.serve.spec import EngineSpec

    if serve.cpu_share is not None and serve.device != "cpu":
        raise ConfigError(f"serve.cpu_share {serve.cpu_share} is for device cpu, the device is {serve.device}; drop it")
    source = ModelSource(config.fleet.model, serve.weights_seed, serve.dtype, serve.device)
    cores = serve.instance_cores
    if cores is None and serve.other_cores is not None:
        cores = tuple(sorted(os.sched_getaffinity(0)))  # else the workers would keep to what they were forked from
    return EngineSpec(source, weights_folder(), cores, serve.cpu_share, serve.steady)
