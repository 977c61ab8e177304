"""What an iteration costs on its way through the stages of a pipeline, and what their memory holds."""

from __future__ import annotations

import pytest

from reference_impl.latency.api import Work
from reference_impl.latency.devices import hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_config import model
from reference_impl.latency.linear import constant
from reference_impl.latency.links import link
from reference_impl.latency.memory import kv_pool_blocks
from reference_impl.latency.pipeline import Pipelined, stage_layers, stage_shares

LLAMA_405B, A100_40G = model("llama-3.1-405b"), hardware("a100-40g")


def test_layers_that_are_left_over_go_to_the_first_stages() -> None:
    """As semi-PD did it for this model on four nodes."""
    assert stage_layers(LLAMA_405B, 4) == (32, 32, 31, 31)
    assert stage_shares(LLAMA_405B, 4) == (32 / 126, 32 / 126, 31 / 126, 31 / 126)


def test_latency_does_not_shrink_and_each_hop_sends_every_tokens_hidden_state() -> None:
    cost = Pipelined(constant(prefill_s=1.0, decode_s=0.1), LLAMA_405B, 4, link("roce-200g"))
    assert cost.iteration_s(Work(((1000, 0), (24, 0)), 0, 0)) == pytest.approx(
        1.0 + 3 * (50e-6 + 1024 * 16384 * 2 / 25e9)
    )
    assert cost.iteration_s(Work((), 64, 6400)) == pytest.approx(0.1 + 3 * (50e-6 + 64 * 16384 * 2 / 25e9))


def test_what_is_assumed_is_said() -> None:
    cost = Pipelined(constant(1.0, 0.1), LLAMA_405B, 4, link("roce-200g"))
    assert cost.name == "pipelined(constant, pp=4)"
    assert "pipeline of 4 stages" in cost.provenance
    assert "roce-200g" in cost.provenance
    assert cost.provenance.endswith("uncalibrated")


@pytest.mark.parametrize("pp", [0, 127])
def test_more_stages_than_layers_are_refused(pp: int) -> None:
    with pytest.raises(ProfileError, match=rf"pipeline parallelism {pp} of llama-3.1-405b's 126 layers"):
        stage_layers(LLAMA_405B, pp)


def test_the_fullest_stage_decides_about_the_memory() -> None:
    """semi-PD's deployment on four nodes of eight; its first stage has 32 of 126 layers and the embeddings."""
    blocks = kv_pool_blocks(A100_40G, LLAMA_405B, tp=8, pp=4)
    layers_bytes = 2 * (LLAMA_405B.parameters - 2 * 128256 * 16384) * 32 / 126
    free = 0.9 * A100_40G.memory_bytes - (layers_bytes + 2 * 128256 * 16384) / 8 - 1e9
    assert blocks == int(free // (32 * 2 * 128 * 2 * 16))


def test_too_few_stages_are_refused_with_all_their_devices() -> None:
    with pytest.raises(ProfileError, match=r"llama-3.1-405b does not fit 16 x a100-40g"):
        kv_pool_blocks(A100_40G, LLAMA_405B, tp=8, pp=2)
