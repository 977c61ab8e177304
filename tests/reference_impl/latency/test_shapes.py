"""Models by name or from a Hugging Face config.json, and what follows from their shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reference_impl.latency.devices import hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.hf_config import model
from reference_impl.latency.roofline import roofline

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Write a config.json that differs from Llama-3-8B's by the given keys; None removes a key."""

    def write(**changes: Any) -> Path:
        merged = {key: item for key, item in (LLAMA | changes).items() if item is not None}
        path = tmp_path / "config.json"
        path.write_text(json.dumps(merged), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("name", "parameters", "kv_bytes"),
    [("llama-2-7b", 6.74e9, 524288), ("llama-3-8b", 8.03e9, 131072), ("llama-3-70b", 70.6e9, 327680)],
)
def test_size_and_kv_match_the_published_model(name: str, parameters: float, kv_bytes: int) -> None:
    shape = model(name)
    assert shape.parameters == pytest.approx(parameters, rel=0.002)
    assert shape.kv_bytes_per_token == kv_bytes
    assert shape.weight_bytes == 2 * shape.parameters


@pytest.mark.parametrize(
    "name", ["Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "/data/model/Llama-3.1-8B-Instruct", "meta-llama/llama-3.1-8b/"]
)
def test_a_hub_name_or_path_finds_the_model(name: str) -> None:
    assert model(name).name == "llama-3.1-8b"


def test_flops_of_a_token_are_twice_the_weights_it_meets() -> None:
    shape = model("llama-2-7b")
    assert shape.flops_per_token + shape.head_flops == 2 * (shape.parameters - shape.vocab * shape.hidden)


def test_a_config_file_gives_the_same_shape_as_the_table(config: Any) -> None:
    read, known = model(config()), model("llama-3-8b")
    assert (read.parameters, read.kv_dim, read.max_context_tokens) == (known.parameters, known.kv_dim, 8192)
    assert model(config().parent).layers == 32


def test_without_kv_heads_every_head_has_its_own(config: Any) -> None:
    assert model(config(num_key_value_heads=None)).kv_heads == 32


def test_head_dim_may_differ_from_hidden_over_heads(config: Any) -> None:
    assert model(config(architectures=["Qwen3ForCausalLM"], head_dim=256)).query_dim == 32 * 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "key 'hidden_size' is missing"),
        ({"num_hidden_layers": "many"}, "num_hidden_layers is 'many'; it must be a positive integer"),
        ({"vocab_size": 0}, "vocab_size is 0; it must be a positive integer"),
        (
            {"architectures": ["GptOssForCausalLM"]},
            "'GptOssForCausalLM' is not modelled.*supported: Llama",
        ),
        ({"architectures": None}, "key 'architectures' is missing"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set"),
        ({"sliding_window": 4096}, "sliding_window=4096 is not modelled"),
        ({"sliding_window": "long"}, "sliding_window is 'long'; it must be a positive integer"),
        ({"num_key_value_heads": 5}, "32 heads and 5 KV heads; these must divide those"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0; it must be a positive integer"),
        ({"num_attention_heads": 48}, "hidden_size 4096 is no multiple of num_attention_heads 48; give head_dim"),
        ({"hidden_size": 16}, "hidden_size 16 is no multiple of num_attention_heads 32"),
        ({"head_dim": 0}, "head_dim is 0; it must be a positive integer"),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype is 'float8_e4m3fn'; only float32, bfloat16, float16"),
        ({"num_local_experts": 8}, "num_local_experts is 8; a mixture of experts is not modelled"),
        ({"kv_lora_rank": 512}, r"kv_lora_rank is 512; latent attention \(MLA\) is not modelled"),
    ],
)
def test_what_cannot_be_costed_is_refused(config: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        model(config(**changes))


def test_a_window_that_is_switched_off_is_no_window(config: Any) -> None:
    path = config(architectures=["Qwen2ForCausalLM"], sliding_window=4096, use_sliding_window=False)
    assert model(path).layers == 32


def test_a_byte_order_mark_is_no_error(config: Any) -> None:
    path: Path = config(torch_dtype="bfloat16")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert model(path).layers == 32


def test_broken_json_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ProfileError, match="cannot read model file"):
        model(tmp_path / "config.json")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ProfileError, match="must hold a JSON object, not list"):
        model(tmp_path / "list.json")
    with pytest.raises(ProfileError, match="does not exist"):
        model(tmp_path / "other.json")


def test_an_unknown_model_shows_the_choices() -> None:
    with pytest.raises(ProfileError, match=r"unknown model 'gpt-5'; choose one of llama-2-7b.*config.json"):
        model("gpt-5")


@pytest.mark.parametrize("tp", [0, 3, 64])
def test_a_degree_that_does_not_divide_the_heads_is_refused(tp: int) -> None:
    with pytest.raises(ProfileError, match=rf"tensor parallelism {tp} does not divide llama-3-8b's 32 heads"):
        model("llama-3-8b").check_tp(tp)


def test_kv_heads_are_repeated_where_there_are_more_devices() -> None:
    assert model("llama-3-8b").kv_dim_per_device(4) == 2 * 128
    assert model("llama-3-8b").kv_dim_per_device(16) == 128


@pytest.mark.parametrize("name", ["tiny", "llama-30m"])
def test_the_engines_own_models_are_known_by_name(name: str) -> None:
    shape = model(name)
    assert shape.name == name
    assert shape.kv_bytes_per_token > 0
    with pytest.raises(ProfileError, match=rf"unknown model.*{name}"):
        model("no-such-model")


def test_float32_takes_twice_the_bytes_and_is_no_matter_for_the_roofline(config: Any) -> None:
    single, half = model(config(dtype="float32")), model(config(torch_dtype="bfloat16"))
    assert single.kv_bytes_per_token == 2 * half.kv_bytes_per_token
    assert roofline(hardware("a100-80g"), half).name
    with pytest.raises(ProfileError, match=r"take 4 bytes each.*semiflow profile"):
        roofline(hardware("a100-80g"), single)
