"""A model's shape from a Hugging Face ``config.json``; what is not modelled is refused instead of costed wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_impl.latency.errors import ProfileError, reason
from reference_impl.latency.experts import Experts
from reference_impl.latency.latent import LatentAttention
from reference_impl.latency.shapes import ModelShape

_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size")
_LATENT_KEYS = ("kv_lora_rank", "q_lora_rank")
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class _Config:
    """A file's keys, with errors that name the file."""

    path: Path
    values: dict[str, Any]

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def number(self, key: str) -> int:
        value = self.values.get(key)
        if value is None:
            raise ProfileError(f"{self.path}: key {key!r} is missing")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ProfileError(f"{self.path}: {key} is {value!r}; it must be a positive integer")
        return value

    def number_or_none(self, key: str) -> int | None:
        return None if self.values.get(key) is None else self.number(key)

    def require(self, key: str, default: Any, *allowed: Any) -> None:
        """Refuse a value of ``key`` that would make a layer unlike what is modelled."""
        value = self.values.get(key, default)
        if value not in allowed:
            raise ProfileError(f"{self.path}: {key} is {value!r}; only {allowed[0]!r} is modelled")


def read_shape(path: Path) -> ModelShape:
    """The model that the file describes. Raises :class:`ProfileError`."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read model file {path}: {reason(error)}") from error
    if not isinstance(values, dict):
        raise ProfileError(f"{path} must hold a JSON object, not {type(values).__name__}")
    config = _Config(path, values)
    architecture = _architecture(config)
    _refuse_unmodelled(config, architecture)
    return _ARCHITECTURES[architecture](config)


def _dense(config: _Config) -> ModelShape:
    return _shape(config, intermediate=config.number("intermediate_size"))


def _opt(config: _Config) -> ModelShape:
    config.require("word_embed_proj_dim", config.number("hidden_size"), config.number("hidden_size"))
    tied = config.get("tie_word_embeddings") is not False
    return _shape(config, intermediate=config.number("ffn_dim"), gated_mlp=False, tied_embeddings=tied)


def _mixtral(config: _Config) -> ModelShape:
    width = config.number("intermediate_size")
    experts = Experts(config.number("num_local_experts"), config.number("num_experts_per_tok"), width)
    return _shape(config, intermediate=width, experts=experts)


def _qwen3_moe(config: _Config) -> ModelShape:
    config.require("decoder_sparse_step", 1, 1)
    config.require("mlp_only_layers", [], [], None)
    chosen, width = config.number("num_experts_per_tok"), config.number("moe_intermediate_size")
    experts = Experts(config.number("num_experts"), chosen, width)
    return _shape(config, intermediate=config.number("intermediate_size"), experts=experts)


def _deepseek(config: _Config) -> ModelShape:
    latent = LatentAttention(
        kv_rank=config.number("kv_lora_rank"),
        rope_dim=config.number("qk_rope_head_dim"),
        nope_dim=config.number("qk_nope_head_dim"),
        value_dim=config.number("v_head_dim"),
        query_rank=config.number_or_none("q_lora_rank"),
    )
    head_dim = latent.nope_dim + latent.rope_dim
    experts = None if config.get("n_routed_experts") is None else _deepseek_experts(config)
    width = config.number("intermediate_size")
    return _shape(config, intermediate=width, head_dim=head_dim, latent=latent, experts=experts)


def _deepseek_experts(config: _Config) -> Experts:
    config.require("moe_layer_freq", 1, 1)
    width = config.number("moe_intermediate_size")
    return Experts(
        routed=config.number("n_routed_experts"),
        per_token=config.number("num_experts_per_tok"),
        intermediate=width,
        shared_intermediate=(config.number_or_none("n_shared_experts") or 0) * width,
        dense_layers=config.number("first_k_dense_replace") if config.get("first_k_dense_replace") else 0,
    )


_ARCHITECTURES: dict[str, Callable[[_Config], ModelShape]] = {
    "LlamaForCausalLM": _dense,
    "MistralForCausalLM": _dense,
    "Qwen2ForCausalLM": _dense,
    "Qwen3ForCausalLM": _dense,
    "OPTForCausalLM": _opt,
    "MixtralForCausalLM": _mixtral,
    "Qwen3MoeForCausalLM": _qwen3_moe,
    "DeepseekV2ForCausalLM": _deepseek,
    "DeepseekV3ForCausalLM": _deepseek,
}


def _shape(config: _Config, **particular: Any) -> ModelShape:
    """What all architectures call alike, and what is ``particular`` to one."""
    heads = config.number("num_attention_heads")
    given: dict[str, Any] = {
        "name": str(config.get("_name_or_path") or config.path.resolve().parent.name),
        "layers": config.number("num_hidden_layers"),
        "hidden": config.number("hidden_size"),
        "heads": heads,
        "kv_heads": config.number_or_none("num_key_value_heads") or heads,
        "vocab": config.number("vocab_size"),
        "max_context_tokens": config.number("max_position_embeddings"),
        "tied_embeddings": bool(config.values.get("tie_word_embeddings", False)),
        "bytes_per_value": _BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 2),
        "source": str(config.path),
        "fp8_weights": bool(config.get("quantization_config")),
    }
    if "head_dim" not in particular:
        given["head_dim"] = _head_dim(config, given["hidden"], heads)
    return ModelShape(**given | particular)


def _head_dim(config: _Config, hidden: int, heads: int) -> int:
    if config.get("head_dim") is not None:
        return config.number("head_dim")
    if hidden % heads:
        raise ProfileError(
            f"{config.path}: hidden_size {hidden} is no multiple of num_attention_heads {heads}; give head_dim"
        )
    return hidden // heads


def _architecture(config: _Config) -> str:
    named = config.get("architectures") or []
    if not isinstance(named, list) or not named:
        raise ProfileError(
            f"{config.path}: key 'architectures' is missing or empty; supported: {', '.join(_ARCHITECTURES)}"
        )
    if named[0] not in _ARCHITECTURES:
        raise ProfileError(
            f"{config.path}: architecture {named[0]!r} is not modelled; supported: {', '.join(_ARCHITECTURES)}"
        )
    return str(named[0])


def _refuse_unmodelled(config: _Config, architecture: str) -> None:
    path = config.path
    quantization = config.get("quantization_config")
    if quantization and (not isinstance(quantization, dict) or quantization.get("quant_method") != "fp8"):
        raise ProfileError(f"{path}: quantization_config is set; only bf16, fp16 and fp8 weights are modelled")
    for key in ("torch_dtype", "dtype"):
        if config.get(key) not in (None, "auto", *_BYTES):
            raise ProfileError(f"{path}: {key} is {config.get(key)!r}; only {', '.join(_BYTES)} weights are modelled")
    if _ARCHITECTURES[architecture] in (_dense, _opt):
        for keys, what in ((_EXPERT_KEYS, "a mixture of experts"), (_LATENT_KEYS, "latent attention (MLA)")):
            given = next((key for key in keys if config.get(key)), None)
            if given is not None:
                raise ProfileError(
                    f"{path}: {given} is {config.get(given)!r}; {what} is not modelled for {architecture}, only dense"
                    " decoders are"
                )
    _refuse_window(config)


def _refuse_window(config: _Config) -> None:
    if not config.get("sliding_window") or not config.values.get("use_sliding_window", True):
        return
    window = config.number("sliding_window")
    if window < config.number("max_position_embeddings"):
        raise ProfileError(
            f"{config.path}: sliding_window={window} is not modelled; set it to null to cost full attention"
        )
