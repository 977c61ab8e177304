"""Find a model by name, or read its shape from a Hugging Face ``config.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.shapes import MODELS, ModelShape

_SUPPORTED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_UNMODELLED_KEYS = {
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"),
        "a mixture of experts",
    ),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), "latent attention (MLA)"),
}
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_LIVE = Path(__file__).parents[1] / "engine" / "models"
"""The engine's own models, one folder each; data, nothing of the engine is imported."""
_SUFFIXES = ("-hf", "-instruct", "-chat", "-base")


def model(name_or_hf_config_path: str | Path) -> ModelShape:
    """The named model (any case; ``meta-llama/Llama-3.1-8B-Instruct`` is found as ``llama-3.1-8b``), one of the
    engine's own (``tiny``), or one read from a ``config.json`` or the folder that holds it.

    Raises :class:`ProfileError` for an unknown name, a missing key or an architecture that is not modelled.
    """
    text = str(name_or_hf_config_path)
    path = Path(text)
    if path.is_dir() and (path / "config.json").exists():
        path = path / "config.json"
    if path.is_file():
        return _read(path)
    if text.lower().endswith(".json"):
        raise ProfileError(f"model file {text} does not exist")
    live = _live_models()
    if text in live:
        return _read(live[text])
    found = MODELS.get(_plain(text))
    if found is None:
        choices = ", ".join([*MODELS, *live])
        raise ProfileError(
            f"unknown model {text!r}; choose one of {choices}, or give the path of a Hugging Face config.json"
        )
    return found


def _live_models() -> dict[str, Path]:
    """Name -> configuration."""
    return {path.parent.name: path for path in sorted(_LIVE.glob("*/config.json"))}


def _plain(name: str) -> str:
    plain = name.replace("\\", "/").rstrip("/").split("/")[-1].lower().replace("_", "-").replace("meta-llama", "llama")
    while plain.endswith(_SUFFIXES):
        plain = plain[: plain.rindex("-")]
    return plain


def _read(path: Path) -> ModelShape:
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read model file {path}: {error}") from error
    if not isinstance(config, dict):
        raise ProfileError(f"{path} must hold a JSON object, not {type(config).__name__}")
    _refuse_unmodelled(path, config)
    hidden, heads = _number(path, config, "hidden_size"), _number(path, config, "num_attention_heads")
    kv_heads = _number(path, config, "num_key_value_heads") if config.get("num_key_value_heads") is not None else heads
    return ModelShape(
        name=_name(path, config),
        layers=_number(path, config, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_head_dim(path, config, hidden, heads),
        intermediate=_number(path, config, "intermediate_size"),
        vocab=_number(path, config, "vocab_size"),
        max_context_tokens=_number(path, config, "max_position_embeddings"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        bytes_per_value=_BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 2),
        source=str(path),
    )


def _head_dim(path: Path, config: dict[str, Any], hidden: int, heads: int) -> int:
    if config.get("head_dim") is not None:
        return _number(path, config, "head_dim")
    if hidden % heads:
        raise ProfileError(f"{path}: hidden_size {hidden} is no multiple of num_attention_heads {heads}; give head_dim")
    return hidden // heads


def _refuse_unmodelled(path: Path, config: dict[str, Any]) -> None:
    """Say what is not modelled instead of costing it wrongly."""
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not architectures:
        raise ProfileError(f"{path}: key 'architectures' is missing or empty; supported: {', '.join(_SUPPORTED)}")
    if architectures[0] not in _SUPPORTED:
        raise ProfileError(
            f"{path}: architecture {architectures[0]!r} is not modelled (dense decoders with plain attention only); "
            f"supported: {', '.join(_SUPPORTED)}"
        )
    if config.get("quantization_config"):
        raise ProfileError(f"{path}: quantization_config is set; only bf16 and fp16 weights are modelled")
    for key in ("torch_dtype", "dtype"):
        if config.get(key) not in (None, "auto", *_BYTES):
            raise ProfileError(f"{path}: {key} is {config[key]!r}; only {', '.join(_BYTES)} weights are modelled")
    for key, what in _UNMODELLED_KEYS.items():
        if config.get(key):
            raise ProfileError(f"{path}: {key} is {config[key]!r}; {what} is not modelled, only dense decoders are")
    window = config.get("sliding_window")
    if not window or not config.get("use_sliding_window", True):
        return
    window = _number(path, config, "sliding_window")
    if window < _number(path, config, "max_position_embeddings"):
        raise ProfileError(f"{path}: sliding_window={window} is not modelled; set it to null to cost full attention")


def _number(path: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if value is None:
        raise ProfileError(f"{path}: key {key!r} is missing")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ProfileError(f"{path}: {key} is {value!r}; it must be a positive integer")
    return value


def _name(path: Path, config: dict[str, Any]) -> str:
    named = config.get("_name_or_path")
    return str(named) if named else path.resolve().parent.name
