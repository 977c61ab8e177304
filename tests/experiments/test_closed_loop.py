"""Benchmarks at fixed concurrency in virtual time, against what can be told by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.closed_loop import Benchmark, run_closed_loop
from experiments.config_base import ConfigError
from policies.registry import PolicySpec
from reference_impl.core.spec import InstanceSpec
from reference_impl.latency import ContentionModel, DecodeFit, Linear, constant


def instance(batch: str = "prefill_first", **changed: object) -> InstanceSpec:
    spec = InstanceSpec(
        role="colocated",
        latency=constant(prefill_s=1.0, decode_s=0.1),
        contention=ContentionModel(),
        kv_blocks=1000,
        kv_bytes_per_token=1.0,
        max_context_tokens=4096,
        batch=PolicySpec.parse(batch, kind="batch"),
        prefix_caching=False,
    )
    return replace(spec, **changed)  # type: ignore[arg-type]  # fields by name


def test_one_user_sees_prefill_and_decodes() -> None:
    answers = run_closed_loop(instance(), Benchmark(1, 100, 11, warm_up=1, counted=3))
    assert answers.ttft_s == pytest.approx([1.0] * 3)
    assert answers.tpot_s == pytest.approx([0.1] * 3)


def test_users_in_step_share_one_prefill() -> None:
    answers = run_closed_loop(instance(), Benchmark(4, 100, 11, warm_up=1, counted=2))
    assert len(answers.tpot_s) == 8
    assert answers.ttft_s == pytest.approx([1.0] * 8)
    assert answers.tpot_s == pytest.approx([0.1] * 8)


def test_prompts_stall_the_decodes_of_others() -> None:
    """Two users who fell out of step: each sees one prefill of the other among its ten gaps."""
    answers = run_closed_loop(instance(max_batch_tokens=300, max_sequences=2), Benchmark(2, 200, 11))
    assert max(answers.tpot_s) == pytest.approx(0.1 + 1.0 / 10)


def test_runs_in_closed_form_are_those_of_plain_steps() -> None:
    growing = Linear(0.5, 1e-4, 1e-9, (DecodeFit(0.01, 1e-6, 1e-4),))

    class Stepped(Linear):
        def piece(self, work: object) -> None:  # type: ignore[override]  # a model without pieces
            return None

    stepped = Stepped(growing.prefill_base_s, growing.prefill_token_s, growing.prefill_square_s, growing.decode_fits)
    benchmark = Benchmark(5, 300, 40)
    fast = run_closed_loop(instance("unified_budget", latency=growing, max_batch_tokens=512), benchmark)
    slow = run_closed_loop(instance("unified_budget", latency=stepped, max_batch_tokens=512), benchmark)
    assert fast.tpot_s == pytest.approx(slow.tpot_s, rel=1e-9)
    assert fast.ttft_s == pytest.approx(slow.ttft_s, rel=1e-9)


def test_a_full_pool_makes_users_wait() -> None:
    """Room for two requests: four users take turns, and each waits for a whole turn of the others."""
    answers = run_closed_loop(instance(kv_blocks=16), Benchmark(4, 100, 11))
    assert max(answers.ttft_s) == pytest.approx(1.0 + 2.0)


def test_a_request_beyond_the_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"its 300 tokens exceed the 257 that the KV pool or context allows"):
        run_closed_loop(instance(kv_blocks=16), Benchmark(1, 200, 100))
