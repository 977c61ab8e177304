"""Colocated instances whose iterations take as long as BLIS's do: what the figures about routers simulate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.run import simulated_log

if TYPE_CHECKING:
    from reference_impl.core.spec import ClusterSpec
    from reference_impl.metrics import RunLog
    from workloads.trace import Trace

ITERATION_S, PROMPT_TOKEN_S, DECODE_S = 6.91e-3, 2.05e-5, 2.84e-6
"""An iteration takes 6.9 ms, and 17.4 ms with a prompt of 512 tokens (BLIS, hypothesis H29)."""
_BLOCK_TOKENS = 16


def fleet(
    dispatch: str, seed: int, *, instances: int, job_executors: int = 1, decode_s: float = DECODE_S, **fields: Any
) -> ClusterSpec:
    """The deployment; ``fields`` are further ones of :class:`ClusterSpec`."""
    from policies.registry import PolicySpec
    from reference_impl.core.seeds import executor_seed
    from reference_impl.core.spec import ClusterSpec, InstanceSpec, Link
    from reference_impl.latency import DecodeFit, Linear
    from reference_impl.latency.contention import ContentionModel

    policy = PolicySpec.parse(dispatch, "dispatch")
    first, *others = (policy.build(executor_seed(seed, number)) for number in range(job_executors))
    decodes = (DecodeFit(ITERATION_S, per_sequence_s=decode_s),)
    instance = InstanceSpec(
        role="colocated",
        latency=Linear(ITERATION_S, PROMPT_TOKEN_S, 0.0, decodes, name="blis", provenance="BLIS H29; uncalibrated"),
        contention=ContentionModel(),
        kv_blocks=60_000,
        kv_bytes_per_token=1.0,
        max_context_tokens=1 << 17,
        batch=PolicySpec.parse("unified_budget", "batch"),
        block_tokens=_BLOCK_TOKENS,
        max_sequences=1024,
    )
    return ClusterSpec(
        instances=(instance,) * instances,
        dispatch=first,
        other_executors=tuple(others),
        scaling=PolicySpec.parse("fixed", "scaling").build(seed),
        link=Link(1e9),
        seed=seed,
        **fields,
    )


def simulated(spec: ClusterSpec, trace: Trace) -> RunLog:
    """The events of one run."""
    return simulated_log(spec, trace, {})


def ttft_p99_ms(run: RunLog) -> float:
    """P99 TTFT of all requests, in milliseconds."""
    import numpy as np

    from reference_impl.metrics import per_request

    return float(np.percentile(per_request(run).ttft_s, 99)) * 1e3
