"""The known models against the totals that their makers publish, and their configuration files against the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.experts import Experts
from reference_impl.latency.hf_config import model

DEEPSEEK_V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 129280,
}
DEEPSEEK_V2_LITE = DEEPSEEK_V3 | {
    "architectures": ["DeepseekV2ForCausalLM"],
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "quantization_config": None,
    "vocab_size": 102400,
}
OPT_13B = {
    "architectures": ["OPTForCausalLM"],
    "ffn_dim": 20480,
    "hidden_size": 5120,
    "max_position_embeddings": 2048,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "torch_dtype": "float16",
    "vocab_size": 50272,
    "word_embed_proj_dim": 5120,
}
QWEN3_30B_A3B = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "vocab_size": 151936,
}
MIXTRAL_8X7B = {
    "architectures": ["MixtralForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "sliding_window": None,
    "vocab_size": 32000,
}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Write a config.json."""

    def write(content: dict[str, Any], **changes: Any) -> Path:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(content | changes), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-3.1-405b", 405.85),
        ("codellama-34b", 33.74),
        ("qwen-72b", 72.29),
        ("qwen3-32b", 32.76),
        ("opt-13b", 12.85),
        ("deepseek-v2-lite", 15.7),
        ("deepseek-v3", 671),
    ],
)
def test_the_total_is_the_published_one(name: str, billions: float) -> None:
    """Model cards and the sizes that the hub counts."""
    assert model(name).parameters == pytest.approx(billions * 1e9, rel=0.01)


@pytest.mark.parametrize(("name", "billions"), [("deepseek-v2-lite", 2.4), ("deepseek-v3", 37)])
def test_a_token_meets_the_published_part_of_the_weights(name: str, billions: float) -> None:
    shape = model(name)
    looked_up = shape.vocab * shape.hidden  # the input embedding, which is not multiplied
    assert shape.active_parameters - looked_up == pytest.approx(billions * 1e9, rel=0.03)
    assert shape.flops_per_token + shape.head_flops == 2 * (shape.active_parameters - looked_up)


@pytest.mark.parametrize(("name", "kilobytes"), [("deepseek-v3", 70.272), ("llama-3.1-405b", 516.096)])
def test_kv_of_a_token_is_the_published_size(name: str, kilobytes: float) -> None:
    """Table 1 of DeepSeek's account of its hardware (arXiv 2505.09343)."""
    assert model(name).kv_bytes_per_token == round(1000 * kilobytes)


def test_fp8_halves_the_layers_and_leaves_embeddings_and_kv() -> None:
    fp8, bf16 = model("deepseek-v3"), replace(model("deepseek-v3"), fp8_weights=False)
    embeddings = 2 * fp8.embedding_parameters
    assert fp8.weight_bytes - embeddings == (bf16.weight_bytes - embeddings) / 2
    assert fp8.kv_bytes_per_token == bf16.kv_bytes_per_token


def test_latent_kv_is_whole_on_every_device() -> None:
    latent, grouped = model("deepseek-v3"), model("llama-3-70b")
    assert latent.kv_values_per_device(8) == latent.kv_values_per_device(1) == 512 + 64
    assert grouped.kv_values_per_device(8) == grouped.kv_values_per_device(1) / 8


@pytest.mark.parametrize(
    ("name", "content"),
    [("deepseek-v3", DEEPSEEK_V3), ("deepseek-v2-lite", DEEPSEEK_V2_LITE), ("opt-13b", OPT_13B)],
)
def test_a_configuration_file_gives_the_known_shape(config: Any, name: str, content: dict[str, Any]) -> None:
    known = model(name)
    assert replace(model(config(content)), name=known.name, source=known.source) == known


@pytest.mark.parametrize(
    ("content", "total", "active"), [(QWEN3_30B_A3B, 30.5e9, 3.3e9), (MIXTRAL_8X7B, 46.7e9, 12.9e9)]
)
def test_other_experts_are_read(config: Any, content: dict[str, Any], total: float, active: float) -> None:
    shape = model(config(content))
    assert shape.parameters == pytest.approx(total, rel=0.01)
    assert shape.active_parameters == pytest.approx(active, rel=0.03)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (DEEPSEEK_V3, {"moe_layer_freq": 2}, "moe_layer_freq is 2; only 1 is modelled"),
        (DEEPSEEK_V3, {"kv_lora_rank": None}, "key 'kv_lora_rank' is missing"),
        (DEEPSEEK_V3, {"first_k_dense_replace": 61}, "all of its 61 layers are dense"),
        (DEEPSEEK_V3, {"num_experts_per_tok": 300}, "300 experts per token of 256; it must be 1 to 256"),
        (DEEPSEEK_V3, {"quantization_config": {"quant_method": "awq"}}, "only bf16, fp16 and fp8 weights are modelled"),
        (QWEN3_30B_A3B, {"decoder_sparse_step": 2}, "decoder_sparse_step is 2; only 1 is modelled"),
        (QWEN3_30B_A3B, {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]; only \[\] is modelled"),
        (OPT_13B, {"word_embed_proj_dim": 512}, "word_embed_proj_dim is 512; only 5120 is modelled"),
        (OPT_13B, {"num_experts": 8}, "a mixture of experts is not modelled for OPTForCausalLM"),
    ],
)
def test_what_is_unlike_the_modelled_layers_is_refused(
    config: Any, content: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        model(config(content, **changes))


def test_a_batch_touches_few_experts_at_first_and_all_in_the_end() -> None:
    experts = Experts(routed=256, per_token=8, intermediate=2048)
    assert experts.touched(1) == pytest.approx(8)
    assert experts.touched(2) == pytest.approx(16 - 8 * 8 / 256)  # the second token meets some of the first one's
    assert experts.touched(4096) == pytest.approx(256)
