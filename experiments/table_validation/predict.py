"""What a row's benchmark comes to in simulation, and why some rows have none."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from experiments.closed_loop import Benchmark, run_closed_loop
from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from experiments.table_validation.rows import Row
    from reference_impl.core.spec import InstanceSpec
    from reference_impl.latency.operators.model import Composed
    from reference_impl.latency.operators.profile import Operators

BATCH_POLICIES = {"vllm": "unified_budget", "trtllm": "unified_budget", "sglang": "prefill_first"}
"""How each backend shares an iteration between prompts and decodes by default."""
MAX_BATCH_TOKENS = 8192
"""Default of all three on devices of this size: max_num_batched_tokens, max_num_tokens, chunked_prefill_size."""
_MAX_SEQUENCES = 1024
_PROFILES = {"h100_sxm": "h100", "h200_sxm": "h200", "a100_sxm": "a100"}


class Engine(NamedTuple):
    """What is assumed of a backend at one precision."""

    per: str
    """What its overhead is counted by: ``iteration`` or ``sequence`` (of an iteration)."""
    kv_dtype: str
    overhead_s: float = 0.0


class Prediction(NamedTuple):
    """Means over the counted requests."""

    ttft_ms: float
    tpot_ms: float


def why_uncovered(row: Row) -> str | None:
    """The reason why the shipped profiles do not cover a row; None: they do."""
    from reference_impl.latency import ProfileError

    for column, value, allowed in (("mode", row.mode, "agg"), ("pp_size", row.pipeline, 1)):
        if value != allowed:
            return f"{column} is {value}; simulated: {allowed}"
    if row.group.backend not in BATCH_POLICIES:
        return f"backend {row.group.backend} is not modelled"
    if row.system not in _PROFILES:
        return f"no shipped profile of {row.system}"
    if row.output_tokens < 2:
        return "one output token has no TPOT"
    try:
        spec = _instance(row, Engine("iteration", "bf16"))
    except (ConfigError, ProfileError) as error:
        return str(error)
    needed = row.prompt_tokens + row.output_tokens
    if needed > spec.max_request_tokens:
        return f"a request of {needed} tokens exceeds the KV pool or the context"
    return None


def predict(row: Row, engine: Engine) -> Prediction:
    """Simulate a row that is covered. Users ask all at once at the start; see ``closed_loop``."""
    benchmark = Benchmark(row.concurrency, row.prompt_tokens, row.output_tokens)
    answers = run_closed_loop(_instance(row, engine), benchmark)
    return Prediction(1e3 * _mean(answers.ttft_s), 1e3 * _mean(answers.tpot_s))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _instance(row: Row, engine: Engine) -> InstanceSpec:
    from policies.registry import PolicySpec
    from reference_impl.core.spec import InstanceSpec
    from reference_impl.latency import ContentionModel, kv_pool_blocks
    from reference_impl.latency.operators.profile import weight_bytes

    latency = _latency(row, engine)
    model, tp = latency.model, row.group.tp
    kv_bytes = 1 if engine.kv_dtype == "fp8" else 2
    return InstanceSpec(
        role="colocated",
        latency=latency,
        contention=ContentionModel(),
        kv_blocks=kv_pool_blocks(
            latency.hardware, model, tp, weight_bytes=weight_bytes(model, row.dtype), kv_bytes_per_value=kv_bytes
        ),
        kv_bytes_per_token=model.kv_bytes_per_token * kv_bytes / 2,
        max_context_tokens=model.max_context_tokens,
        batch=PolicySpec.parse(BATCH_POLICIES[row.group.backend], kind="batch"),
        max_sequences=_MAX_SEQUENCES,
        max_batch_tokens=MAX_BATCH_TOKENS,
        prefix_caching=False,
        devices=tp,
    )


def _latency(row: Row, engine: Engine) -> Composed:
    from reference_impl.latency import model
    from reference_impl.latency.backends import Backend
    from reference_impl.latency.operators.model import Composed

    per_iteration = engine.overhead_s if engine.per == "iteration" else 0.0
    backend = Backend(row.group.backend, per_iteration, engine.overhead_s - per_iteration, "being fitted")
    return Composed(
        _operators(_PROFILES[row.system]), model(row.group.model), row.group.tp, row.dtype, backend, engine.kv_dtype
    )


@cache
def _operators(name: str) -> Operators:
    """A shipped profile, read once."""
    from reference_impl.latency.operators.profile import open_operators

    opened = open_operators(name)
    assert opened is not None, "a shipped profile is always found"
    return opened[0]
