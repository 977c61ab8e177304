"""The roofline against hand arithmetic and against published operator times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reference_impl.latency.api import LatencyModel, Work
from reference_impl.latency.backends import BACKENDS
from reference_impl.latency.collective import all_reduce_s
from reference_impl.latency.devices import hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.estimate import ModelEstimate
from reference_impl.latency.hf_config import model
from reference_impl.latency.roofline import roofline

PREFILL_TOKENS = (256, 512, 1024, 2048, 4096, 8192)
COMPOSED_PREFILL_MS = {
    "h200": (6.1, 9.7, 18.6, 37.4, 82.7, 184.7),
    "h100": (7.2, 9.6, 19.3, 37.0, 79.6, 187.1),
    "a100-80g": (20, 32.6, 59.3, 116.7, 249, 551),
}
COMPOSED_DECODE_MS = {
    "h200": {(1, 512): 4.3, (32, 1024): 5.71, (64, 2048): 8.76, (128, 1024): 9.09, (32, 8192): 12.8},
    "h100": {(1, 512): 5.45, (32, 1024): 7.7, (64, 2048): 11.8, (128, 1024): 11.8, (32, 8192): 17.1},
    "a100-80g": {(1, 512): 10.8, (32, 1024): 14.3, (64, 2048): 21.6, (8, 8192): 15.9, (32, 8192): 36.5},
}
"""GEMM and attention of Llama-3.1-8B composed from AIConfigurator's tables (the field survey, part 4.2)."""


def extras_s(name: str, tokens: int, sequences: int) -> float:
    """What the composed times leave out: element-wise operators and the output head."""
    device, shape = hardware(name), model("llama-3.1-8b")
    values = 8 * shape.hidden + 2 * (shape.query_dim + shape.kv_dim) + 3 * shape.intermediate
    elementwise = 4 * device.elementwise_launch_s + tokens * values * 2 / device.hbm_bytes_per_s
    head_bytes = (shape.hidden * shape.vocab + sequences * (shape.hidden + shape.vocab)) * 2
    head = device.gemm_launch_s + head_bytes / (device.hbm_bytes_per_s * device.gemm_bandwidth_efficiency)
    return shape.layers * elementwise + head


@pytest.mark.parametrize("name", COMPOSED_PREFILL_MS)
def test_prefill_matches_published_operator_times(name: str) -> None:
    cost = roofline(hardware(name), model("llama-3.1-8b"), backend="none")
    for tokens, published_ms in zip(PREFILL_TOKENS, COMPOSED_PREFILL_MS[name], strict=True):
        ours_ms = 1e3 * (cost.iteration_s(Work(((tokens, 0),), 0, 0)) - extras_s(name, tokens, 1))
        assert ours_ms == pytest.approx(published_ms, rel=0.2 if tokens < 512 else 0.09)


@pytest.mark.parametrize("name", COMPOSED_DECODE_MS)
def test_decode_matches_published_operator_times(name: str) -> None:
    cost = roofline(hardware(name), model("llama-3.1-8b"), backend="none")
    for (sequences, context), published_ms in COMPOSED_DECODE_MS[name].items():
        work = Work((), sequences, sequences * context)
        ours_ms = 1e3 * (cost.iteration_s(work) - extras_s(name, sequences, sequences))
        assert ours_ms == pytest.approx(published_ms, rel=0.1)


def test_prefill_matches_distserve_on_an_a100(calibration: Path) -> None:
    fits = json.loads((calibration / "distserve_a100_80g.json").read_text(encoding="utf-8"))["facebook/opt-13b"]["1"]
    cost = roofline(hardware("a100-80g"), model("opt-13b"), backend="none")
    base, token, square = fits["prefill"]
    for tokens in (512, 1024, 2048):
        growth = cost.iteration_s(Work(((tokens, 0),), 0, 0)) - cost.iteration_s(Work(((256, 0),), 0, 0))
        theirs = token * (tokens - 256) + square * (tokens**2 - 256**2)
        assert 1e3 * growth == pytest.approx(theirs, rel=0.1)
    assert base > 0


def test_decode_is_bound_by_reading_the_weights() -> None:
    a100, llama = hardware("a100-80g"), model("llama-2-7b")
    floor_s = llama.weight_bytes / a100.hbm_bytes_per_s
    assert floor_s < roofline(a100, llama, backend="none").iteration_s(Work((), 1, 1)) < 1.8 * floor_s


def test_a_long_prefill_is_bound_by_compute() -> None:
    h100, llama = hardware("h100"), model("llama-3-8b")
    took_s = roofline(h100, llama, backend="none").iteration_s(Work(((8192, 0),), 0, 0))
    pairs = 8192 * 8193 / 2
    flops = 8192 * llama.flops_per_token + pairs * llama.attention_flops_per_pair
    assert 0.6 < flops / h100.bf16_flops / took_s < 0.9


def test_chunking_a_prompt_keeps_its_attention_and_pays_the_weights_again() -> None:
    cost = roofline(hardware("h100"), model("llama-3-8b"), backend="none")
    whole = cost.iteration_s(Work(((4096, 0),), 0, 0))
    chunks = sum(cost.iteration_s(Work(((512, 512 * index),), 0, 0)) for index in range(8))
    assert whole < chunks < 1.3 * whole


def test_tensor_parallelism_helps_less_than_its_degree() -> None:
    shape, device = model("llama-3-70b"), hardware("h100")
    times = [roofline(device, shape, tp=tp, backend="none").iteration_s(Work((), 16, 16_000)) for tp in (2, 4, 8)]
    assert times[0] > times[1] > times[2] > times[0] / 4


def test_the_all_reduce_matches_a_measured_one() -> None:
    """NCCL over two RTX PRO 6000 on PCIe, medians, from LLMServingSim's hardware file: bytes -> microseconds."""
    measured = {4096: 12.7, 65536: 14.8, 1048576: 41.0, 4194304: 124.9, 20971520: 587.1}
    device = hardware("rtx-pro-6000")
    for payload, microseconds in measured.items():
        assert 1e6 * all_reduce_s(device, 2, payload) == pytest.approx(microseconds, rel=0.08)
    assert all_reduce_s(device, 1, 1e6) == 0.0


def test_an_engine_adds_its_step_and_sequence_overhead() -> None:
    device, shape, work = hardware("h100"), model("llama-3-8b"), Work((), 64, 64_000)
    kernels = roofline(device, shape, backend="none").iteration_s(work)
    engine = BACKENDS["vllm"]
    expected = kernels + engine.step_overhead_s + 64 * engine.sequence_overhead_s
    assert roofline(device, shape, backend="VLLM").iteration_s(work) == pytest.approx(expected)


def test_an_unknown_engine_shows_the_choices() -> None:
    with pytest.raises(ProfileError, match="unknown backend 'trt'; choose one of none, vllm, vllm-v0"):
        roofline(hardware("h100"), model("llama-3-8b"), backend="trt")


def test_a_degree_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ProfileError, match="tensor parallelism 3"):
        roofline(hardware("h100"), model("llama-3-8b"), tp=3)


def test_provenance_names_sources_and_errors() -> None:
    calibrated: LatencyModel = roofline(hardware("h100"), model("llama-3-8b"))
    assert "median error" in calibrated.provenance
    assert "AIConfigurator" in calibrated.provenance
    assert "uncalibrated" in roofline(hardware("rtx-4090"), model("llama-3-8b")).provenance


def test_policies_see_the_same_times() -> None:
    cost = roofline(hardware("h100"), model("llama-3-8b"))
    estimate = ModelEstimate(cost)
    assert estimate.prefill_s(100, 50) == cost.iteration_s(Work(((100, 50),), 0, 0))
    assert estimate.decode_s(3, 100) == cost.iteration_s(Work((), 3, 100))
