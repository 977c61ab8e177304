"""Which models can be served, and how the others are refused: by their config, or by what their forward does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reference_impl.engine.api import ChunkRow, EngineError, ForwardBatch, SamplingParams
from reference_impl.engine.kv_cache import KvPool
from reference_impl.engine.model_facts import read_facts
from reference_impl.engine.runner import Runner
from reference_impl.engine.weights import ModelSource, ensure_weights

MakeModel = Callable[..., Path]


def serve(folder: Path, cache: Path) -> Runner:
    source = ModelSource(str(folder))
    pool = KvPool.create(None, read_facts(folder).kv_layout(8, "float32"), 8)
    return Runner(ensure_weights(source, cache), source, pool)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("mistral", {"sliding_window": 64}, "sliding_window 64 below max_position_embeddings 512"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64}, "sliding_window 64 below"),
        ("qwen3", {"sliding_window": 9, "layer_types": ["full_attention", "sliding_attention"]}, "sliding_window 9"),
        ("gemma2", {"attn_logit_softcapping": 50.0}, r"attn_logit_softcapping 50\.0, soft-capped attention"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope type 'dynamic'"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "rope type 'longrope'"),
        ("deepseek_v3", {"kv_lora_rank": 16}, "kv_lora_rank 16, latent attention"),
        ("llama", {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ("t5", {"is_encoder_decoder": True}, "an encoder"),
        ("qwen3_next", {"layer_types": ["linear_attention", "full_attention"]}, "layer_types"),
    ],
)
def test_a_config_that_asks_for_more_is_refused_without_loading_anything(
    family: str, changes: dict[str, Any], message: str, make_model: MakeModel
) -> None:
    folder = make_model(family, **changes)
    with pytest.raises(EngineError, match=message) as caught:
        read_facts(folder)
    assert "allowed: decoders with standard full attention" in str(caught.value)
    assert family in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mistral", {"sliding_window": 512}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 64}),
        ("qwen3", {"sliding_window": 9, "layer_types": ["full_attention", "full_attention"]}),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
        ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
        ("phi3", {"rope_theta": 10000.0}),
        ("granite", {}),
        ("smollm3", {}),
    ],
)
def test_a_config_that_only_mentions_it_is_served(
    family: str, changes: dict[str, Any], make_model: MakeModel, weights_cache: Path
) -> None:
    """Loading compares the model's logits over a paged cache with those of its own attention."""
    runner = serve(make_model(family, **changes), weights_cache)
    runner.admit(1, SamplingParams(max_tokens=1, temperature=0.0))
    outcome = runner.run(ForwardBatch(0, (ChunkRow(1, [5, 6, 7], 0, [3], True),), ()))
    assert len(outcome.tokens) == 1


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mamba", {"state_size": 8}),
        ("rwkv", {"attention_hidden_size": 48}),
        ("bloom", {"n_layer": 2, "n_head": 4}),
        ("gpt_oss", {"num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2}),
        ("gemma", {}),
        ("bert", {}),
    ],
)
def test_what_no_config_key_tells_is_found_when_the_model_is_loaded(
    family: str, changes: dict[str, Any], make_model: MakeModel, weights_cache: Path
) -> None:
    with pytest.raises(EngineError, match="allowed: ") as caught:
        serve(make_model(family, **changes), weights_cache)
    assert "\n" not in str(caught.value)


def test_a_model_that_computes_something_else_is_caught_by_its_logits(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reference_impl.engine.device.pool_views import PoolViews

    def misplace(self: PoolViews, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        self.layer(layer)[0].index_copy_(0, slots, key.transpose(0, 1).flip(0))

    monkeypatch.setattr(PoolViews, "write", misplace)
    with pytest.raises(EngineError, match="LlamaForCausalLM's logits over a paged cache are off by"):
        serve(checkpoints["llama"], Path())


def test_an_unknown_model_type_is_refused(make_model: MakeModel, weights_cache: Path) -> None:
    with pytest.raises(EngineError, match="allowed: a model type that transformers itself knows"):
        serve(make_model("nonsense-9000"), weights_cache)


def test_a_pool_of_another_shape_is_refused(checkpoints: dict[str, Path]) -> None:
    folder = checkpoints["qwen3"]
    pool = KvPool.create(None, read_facts(checkpoints["llama"]).kv_layout(8, "float32"), 4)
    with pytest.raises(EngineError, match=r"the KV pool has .*kv_heads=2.* this model needs .*kv_heads=1"):
        Runner(folder, ModelSource(str(folder)), pool)


def test_bfloat16_is_served(make_model: MakeModel, weights_cache: Path) -> None:
    source = ModelSource(str(make_model("llama")), dtype="bfloat16")
    folder = ensure_weights(source, weights_cache)
    pool = KvPool.create(None, read_facts(folder).kv_layout(8, "bfloat16"), 8)
    runner = Runner(folder, source, pool)
    runner.admit(1, SamplingParams(max_tokens=1, seed=3))
    outcome = runner.run(ForwardBatch(0, (ChunkRow(1, list(range(2, 40)), 0, range(8), True),), ()))
    assert 0 <= outcome.tokens[0].token < 101
