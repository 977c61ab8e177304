"""KV blocks beside the weights."""

from __future__ import annotations

import pytest

from reference_impl.latency.devices import hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_config import model
from reference_impl.latency.memory import kv_pool_blocks


def test_the_pool_is_what_weights_and_reserve_leave() -> None:
    a100, llama = hardware("a100-80g"), model("llama-2-7b")
    blocks = kv_pool_blocks(a100, llama, reserve_bytes=2e9)
    used = blocks * 16 * llama.kv_bytes_per_token
    left = 0.9 * a100.memory_bytes - llama.weight_bytes - 2e9
    assert 0 <= left - used < 16 * llama.kv_bytes_per_token


def test_it_matches_what_vllm_allocated_for_qwen3_32b() -> None:
    """LLMServingSim's record: vLLM 0.28, two RTX PRO 6000, gpu_memory_utilization 0.92, 28,884 blocks."""
    blocks = kv_pool_blocks(hardware("rtx-pro-6000"), model("qwen3-32b"), tp=2, memory_fraction=0.92)
    assert blocks == pytest.approx(28884, rel=0.01)


def test_two_devices_hold_more_than_twice_as_much() -> None:
    h100, llama = hardware("h100"), model("llama-3-8b")
    assert kv_pool_blocks(h100, llama, tp=2) > 2 * kv_pool_blocks(h100, llama, tp=1)


def test_weights_that_do_not_fit_are_refused_with_the_remedy() -> None:
    with pytest.raises(ProfileError, match=r"llama-3-70b does not fit 1 x a100-80g: 141.1 GB .* use more devices"):
        kv_pool_blocks(hardware("a100-80g"), model("llama-3-70b"))


def test_impossible_settings_are_refused() -> None:
    h100, llama = hardware("h100"), model("llama-3-8b")
    with pytest.raises(ProfileError, match=r"memory fraction is 1.5; it must be in \(0, 1\]"):
        kv_pool_blocks(h100, llama, memory_fraction=1.5)
    with pytest.raises(ProfileError, match="block size is 0 tokens"):
        kv_pool_blocks(h100, llama, block_tokens=0)
