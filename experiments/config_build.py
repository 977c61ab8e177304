"""From a configuration to the things it names: the trace and the cluster. Here names are looked up and files read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, repeat
from typing import TYPE_CHECKING

from experiments.config import (
    ContentionConfig,
    FleetConfig,
    GroupConfig,
    LinkConfig,
    RunConfig,
    SloConfig,
    WorkloadConfig,
)
from experiments.config_base import ConfigError
from experiments.config_costs import build_costs
from experiments.config_fleet_events import build_events

if TYPE_CHECKING:
    from reference_impl.core.spec import ClusterSpec, InstanceSpec, Link, Pipeline, Slo
    from reference_impl.latency import ModelShape
    from reference_impl.latency.api import LatencyModel
    from reference_impl.latency.contention import ContentionModel
    from workloads.trace import Trace

_RETIMING_STREAM = 1
"""Second word of the re-timing generator's seed, so that its stream is its own."""


_MAX_DURATION_S = 1e7
"""116 days. Policies and figures that look at the clock every second cost time for every second."""
_MAX_BLOCKS = 1e6
_MAX_REPORTS = 1e7


def build_trace(workload: WorkloadConfig, seed: int) -> Trace:
    """Open the trace and transform it in the order that :class:`WorkloadConfig` states."""
    from workloads import closed_loop

    trace = _open(workload, seed)
    if workload.closed_loop:
        closed_loop.check(trace)
    if workload.slo_classes:
        trace = trace.with_slo_classes(workload.slo_classes)
    if workload.window_s is not None:
        window = closed_loop.window if workload.closed_loop else type(trace).window
        trace = window(trace, *workload.window_s)
    if workload.resample_block_s is not None:
        _check_blocks(trace, workload.resample_block_s)
        trace = trace.resample_blocks(seed, workload.resample_block_s)
    if workload.max_requests is not None:
        head = closed_loop.head if workload.closed_loop else type(trace).head
        trace = head(trace, workload.max_requests)
    if workload.rate_scale is not None:
        trace = trace.scale_rate(workload.rate_scale)
    if workload.rate_rps is not None:
        import numpy as np

        trace = trace.retime_poisson(workload.rate_rps, np.random.default_rng((seed, _RETIMING_STREAM)))
    if workload.max_total_tokens is not None:
        trace = trace.clip_total_tokens(workload.max_total_tokens)
    if trace.duration_s > _MAX_DURATION_S:
        raise ConfigError(
            f"the arrivals of {trace.name} last {trace.duration_s:g} s; allowed: at most {_MAX_DURATION_S:g} s; raise "
            "the rate, or take a window or fewer requests"
        )
    return trace


def _open(workload: WorkloadConfig, seed: int) -> Trace:
    if workload.synthetic is not None:
        from workloads.synthetic import SyntheticSpec, synthesise

        return synthesise(SyntheticSpec.from_mapping(workload.synthetic), seed)
    from workloads.catalog import open_trace

    return open_trace(_drawn(workload.trace, workload.max_requests, seed), invalid=workload.invalid)


def _drawn(trace: str, requests: int | None, seed: int) -> str:
    """``bundled:NAME`` with what its text leaves open; anything else as it is."""
    if not trace.startswith("bundled:"):
        return trace
    kind, name, given = (*trace.split(":", 2), "")[:3]
    added = {"requests": requests, "seed": seed}
    left_open = [f"{key}={value}" for key, value in added.items() if value is not None and f"{key}=" not in given]
    return f"{kind}:{name}:{','.join(filter(None, [given, *left_open]))}"


def _check_blocks(trace: Trace, block_s: float) -> None:
    if trace.duration_s > block_s * _MAX_BLOCKS:
        raise ConfigError(
            f"workload.resample_block_s is {block_s:g} s, over {_MAX_BLOCKS:,.0f} blocks in the {trace.duration_s:g} s "
            f"of {trace.name}; allowed: {trace.duration_s / _MAX_BLOCKS:g} s or more"
        )


def check_traffic(trace: Trace, cluster: ClusterSpec) -> None:
    """Raises ConfigError where the trace and the cluster do not go together."""
    _check_reports(trace, cluster)
    _check_prefix_blocks(trace, cluster)


def _check_prefix_blocks(trace: Trace, cluster: ClusterSpec) -> None:
    """A prefix id has to stand for whole KV blocks, where they are reused."""
    covered, caching = trace.prefix_block_tokens, (spec for spec in cluster.instances if spec.prefix_caching)
    odd = next((spec.block_tokens for spec in caching if covered is not None and covered % spec.block_tokens), None)
    if odd is not None:
        raise ConfigError(
            f"a prefix id of {trace.name} stands for {covered} prompt tokens, a KV block for {odd}; allowed: whole KV "
            "blocks per prefix id; choose --block-tokens (fleet.block_tokens) so, or --no-prefix-caching"
        )


def _check_reports(trace: Trace, cluster: ClusterSpec) -> None:
    """The simulation would do little else than report."""
    period_s, instances = cluster.report_period_s, len(cluster.instances)
    if period_s is not None and trace.duration_s * instances > period_s * _MAX_REPORTS:
        raise ConfigError(
            f"host.report_period_s is {period_s:g} s, over {_MAX_REPORTS:,.0f} reports of {instances} instances in "
            f"{trace.duration_s:g} s of {trace.name}; allowed: {trace.duration_s * instances / _MAX_REPORTS:g} or more"
        )


def build_cluster(config: RunConfig) -> ClusterSpec:
    """Policies, instances and their cost model. The policies' own seeds derive from ``config.seed`` in the host.

    Raises ConfigError, UnknownPolicy, ParameterError or ProfileError for what the configuration names.
    """
    try:
        return _cluster(config)
    except ValueError as error:
        if type(error) is not ValueError:
            raise  # a subclass is a message to the user already
        raise ConfigError(str(error)) from error


def _cluster(config: RunConfig) -> ClusterSpec:
    from policies.registry import PolicySpec
    from reference_impl.core.seeds import executor_seed
    from reference_impl.core.spec import ClusterSpec

    policies, host = config.policies, config.host
    dispatch = PolicySpec.parse(policies.dispatch, kind="dispatch")
    return ClusterSpec(
        instances=_instances(config),
        dispatch=dispatch.build(config.seed),
        other_executors=tuple(dispatch.build(executor_seed(config.seed, n)) for n in range(1, host.job_executors)),
        scaling=PolicySpec.parse(policies.scaling, kind="scaling").build(config.seed),
        predictor=PolicySpec.parse(policies.predictor, kind="prediction").build(config.seed),
        link=_link(config.link),
        slo=build_slo(config.slo),
        report_period_s=host.report_period_s,
        report_delay_s=host.report_delay_s,
        partition_switch_s=host.partition_switch_s,
        plan_ahead=host.plan_ahead,
        dispatch_delay_s=host.dispatch_delay_s,
        seed=config.seed,
        events=build_events(config.fleet.events),
        startup_s=config.fleet.startup_s,
        max_instances=config.fleet.max_instances,
        convertible=config.fleet.convertible,
    )


def build_slo(given: SloConfig | None) -> Slo | None:
    """The targets by SLO class."""
    from reference_impl.core.spec import Slo

    if given is None:
        return None
    classes = {name: Slo(own.ttft_s, own.tpot_s) for name, own in (given.classes or {}).items()}
    return Slo(given.ttft_s, given.tpot_s, classes)


def build_contention(given: ContentionConfig) -> ContentionModel:
    """How the two lanes of a semi_pd instance slow each other."""
    from reference_impl.latency.contention import ContentionModel

    return ContentionModel(gamma_prefill=given.gamma_prefill, gamma_decode=given.gamma_decode)


def _as_measured(shape: ModelShape, costs: list[LatencyModel]) -> ModelShape:
    """The model with values of the size that a profile was measured with, where it says so."""
    from reference_impl.latency.measured import Measured
    from reference_impl.latency.operators import Composed

    sizes = (latency.bytes_per_value for latency in costs if isinstance(latency, Measured | Composed))
    return replace(shape, bytes_per_value=next(sizes, shape.bytes_per_value))


def _instances(config: RunConfig) -> tuple[InstanceSpec, ...]:
    from policies.registry import PolicySpec
    from reference_impl.core.spec import InstanceSpec
    from reference_impl.latency import model

    fleet = config.fleet
    shape = model(fleet.model)
    costs = {each: build_costs(each) for each in map(fleet.of, fleet.groups)}
    if any(each.hardware_profile is not None for each in costs):
        shape = _as_measured(shape, [latency for latency, _ in costs.values()])
    batch = PolicySpec.parse(config.policies.batch, kind="batch")
    partition = PolicySpec.parse(config.policies.partition, kind="partition")
    contention = build_contention(config.contention)
    return tuple(
        InstanceSpec(
            role=group.role,
            latency=costs[own][0],
            contention=contention,
            kv_blocks=costs[own][1] // own.pp,
            kv_bytes_per_token=shape.kv_bytes_per_token,
            max_context_tokens=shape.max_context_tokens,
            batch=batch,
            partition=partition if group.role == "semi_pd" else None,
            block_tokens=fleet.block_tokens,
            max_sequences=fleet.max_sequences,
            max_batch_tokens=fleet.max_batch_tokens,
            prefix_caching=fleet.prefix_caching,
            devices=own.tp,
            pipeline=pipeline,
        )
        for group, own, pipeline in _engines(fleet, shape)
    )


def _engines(fleet: FleetConfig, shape: ModelShape) -> Iterator[tuple[GroupConfig, FleetConfig, Pipeline | None]]:
    """What policies see as instances: of a pipeline as many virtual engines as it has stages."""
    from reference_impl.core.spec import Pipeline
    from reference_impl.latency import stage_shares

    numbers = count()
    for group in fleet.groups:
        own = fleet.of(group)
        shares = stage_shares(shape, own.pp)
        for _ in range(group.count):
            pipeline = Pipeline(next(numbers), shares) if own.pp > 1 else None
            yield from repeat((group, own, pipeline), own.pp)


def _link(given: LinkConfig) -> Link:
    from reference_impl.core.spec import Link
    from reference_impl.latency.links import link

    named = link(given.kind)
    return Link(
        bandwidth_bytes_per_s=given.bandwidth_bytes_per_s or named.bytes_per_s,
        latency_s=named.latency_s if given.latency_s is None else given.latency_s,
    )
