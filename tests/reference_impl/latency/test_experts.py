"""The roofline of experts, latent attention and fp8 weights against hand arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reference_impl.latency.api import LatencyModel, Work
from reference_impl.latency.collective import all_reduce_s, all_to_all_s
from reference_impl.latency.devices import hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_config import model
from reference_impl.latency.memory import kv_pool_blocks
from reference_impl.latency.roofline import roofline

H200, V3, LITE = hardware("h200"), model("deepseek-v3"), model("deepseek-v2-lite")


def decode_s(cost: LatencyModel, sequences: int, context: int = 1) -> float:
    return cost.iteration_s(Work((), sequences, sequences * context))


def test_a_decode_reads_the_experts_that_its_batch_touches() -> None:
    """Between the batches, products of one and of two tokens read the same other weights."""
    cost = roofline(H200, LITE, backend="none")
    assert LITE.experts is not None
    one, two = LITE.experts.touched(1), LITE.experts.touched(2)
    read_bytes = 2 * (two - one) * LITE.mlp_parameters(LITE.experts.intermediate) * LITE.expert_layers
    seconds = read_bytes / (H200.hbm_bytes_per_s * H200.gemm_bandwidth_efficiency)
    assert decode_s(cost, 2) - decode_s(cost, 1) == pytest.approx(seconds, rel=0.05)


def test_a_large_batch_reads_all_experts_and_computes_those_of_each_token() -> None:
    cost = roofline(H200, LITE, backend="none")
    prompt = Work(((16_384, 0),), 0, 0)
    flops_s = 16_384 * LITE.flops_per_token / (H200.bf16_flops * H200.gemm_efficiency)
    every_weight = 16_384 * 2 * LITE.parameters / (H200.bf16_flops * H200.gemm_efficiency)
    assert flops_s < cost.iteration_s(prompt) < every_weight
    assert decode_s(cost, 256) > LITE.weight_bytes / H200.hbm_bytes_per_s


def test_decoding_against_latents_gains_nothing_from_more_devices() -> None:
    def context_s(shape_name: str, tp: int) -> float:
        cost = roofline(H200, model(shape_name), tp=tp, backend="none")
        return decode_s(cost, 8, 4096) - decode_s(cost, 8, 2048)

    assert context_s("deepseek-v3", 8) == pytest.approx(8 * 2048 * V3.kv_bytes_per_token / (4.8e12 * 0.792))
    assert context_s("llama-3-70b", 8) == pytest.approx(context_s("llama-3-70b", 1) / 8)


def test_latent_decode_attention_can_be_bound_by_compute() -> None:
    slow = replace(H200, bf16_flops=1e14)
    cost = roofline(slow, V3, tp=1, backend="none")
    flops = 8 * 2048 * 61 * 2 * 128 * (2 * 512 + 64)
    growth = decode_s(cost, 8, 4096) - decode_s(cost, 8, 2048)
    assert growth == pytest.approx(flops / (1e14 * slow.attention_efficiency))


def test_a_later_chunk_expands_the_latents_before_it_again() -> None:
    cost = roofline(H200, V3, tp=8, backend="none")
    pairs_s = 512 * 4096 * 61 * 2 * 128 * (192 + 128) / 8 / (H200.bf16_flops * H200.attention_efficiency)
    expansion_s = 4096 * 61 * 2 * 512 * 128 * 256 / 8 / (1978.9e12 * H200.gemm_efficiency)
    read_s = 4096 * 61 * 16 * (192 + 128) * 2 / (H200.hbm_bytes_per_s * H200.attention_io_efficiency)
    growth = cost.iteration_s(Work(((512, 4096),), 0, 0)) - cost.iteration_s(Work(((512, 0),), 0, 0))
    assert growth == pytest.approx(pairs_s + expansion_s + read_s)


def test_expert_parallelism_trades_an_all_reduce_for_two_all_to_alls() -> None:
    """What the link costs, found by halving its bandwidth."""
    slower = replace(H200, link_bytes_per_s=H200.link_bytes_per_s / 2)
    work, hidden_bytes = Work((), 128, 128), 128 * 7168 * 2

    def link_s(expert_parallel: bool) -> float:
        fast, slow = (roofline(item, V3, 8, "none", expert_parallel) for item in (H200, slower))
        return slow.iteration_s(work) - fast.iteration_s(work)

    reduce_s = all_reduce_s(slower, 8, hidden_bytes) - all_reduce_s(H200, 8, hidden_bytes)
    sent_bytes = hidden_bytes / 8 * 8  # an eighth of the tokens, eight experts each
    exchange_s = all_to_all_s(slower, 8, sent_bytes) - all_to_all_s(H200, 8, sent_bytes)
    assert link_s(False) == pytest.approx(61 * 2 * reduce_s)
    assert link_s(True) == pytest.approx((61 + 3) * reduce_s + 58 * 2 * exchange_s)
    assert all_to_all_s(H200, 1, 1e6) == 0.0


def test_what_cannot_be_parallel_or_computed_is_refused() -> None:
    with pytest.raises(ProfileError, match="llama-3-8b has no experts to be parallel"):
        roofline(H200, model("llama-3-8b"), tp=2, expert_parallel=True)
    with pytest.raises(ProfileError, match="128 devices do not divide the 64 experts"):
        roofline(H200, replace(LITE, heads=128, kv_heads=128), tp=128, expert_parallel=True)
    with pytest.raises(ProfileError, match="deepseek-v3 has fp8 weights, and a100-80g does not compute in fp8"):
        roofline(hardware("a100-80g"), V3, tp=8)


def test_the_whole_model_has_to_fit() -> None:
    assert kv_pool_blocks(H200, V3, tp=8) > 0
    with pytest.raises(ProfileError, match=r"deepseek-v3 does not fit 8 x h100: 84.1 GB of weights"):
        kv_pool_blocks(hardware("h100"), V3, tp=8)


def test_approximations_are_named() -> None:
    told = roofline(H200, V3, tp=8, expert_parallel=True).provenance
    for words in ("uncalibrated", "n(1 - (1 - k/n)^tokens)", "two all-to-alls", "decode absorbs", "fp8 weights"):
        assert words in told
    assert "uncalibrated" not in roofline(H200, model("llama-3-8b")).provenance
