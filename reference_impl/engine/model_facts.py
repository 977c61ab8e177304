"""What a model's ``config.json`` says that the engine must know, read without torch; and what it cannot serve."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_impl.engine.api import EngineError
from reference_impl.engine.kv_cache import Dtype, KvLayout

MODELS_FOLDER = Path(__file__).parent / "models"
_SHIFTING_ROPE = ("dynamic", "longrope")
"""Their rotations depend on the longest context of a batch: KV computed in one batch would be wrong in the next."""
_LATENT = ("kv_lora_rank", "q_lora_rank")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The shape of a causal language model with standard attention."""

    model_type: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_tokens: int
    max_context_tokens: int
    eos_token_ids: frozenset[int]

    def kv_layout(self, block_tokens: int, dtype: Dtype) -> KvLayout:
        """The layout of its KV cache."""
        return KvLayout(self.layers, self.kv_heads, self.head_dim, block_tokens, dtype)


def model_folder(path: str) -> Path:
    """The folder of a bundled model by its name, or a folder that holds a ``config.json``."""
    bundled = MODELS_FOLDER / path
    if path in bundled_models():
        return bundled
    folder = Path(path).expanduser()
    if (folder / "config.json").is_file():
        return folder
    what = "has no config.json" if folder.is_dir() else "is neither a bundled model nor a folder"
    raise EngineError(
        f"model {path!r} {what}; allowed: {', '.join(bundled_models())}, or a folder in Hugging Face's layout"
        " (config.json, and *.safetensors unless the weights shall be random)"
    )


def bundled_models() -> tuple[str, ...]:
    """Names of the models that ship with the engine; weights that do not ship with them are drawn."""
    return tuple(sorted(found.parent.name for found in MODELS_FOLDER.glob("*/config.json")))


def read_facts(folder: Path) -> ModelFacts:
    """Raises EngineError for a model that the engine cannot serve, naming what it is about it."""
    config = read_json(folder / "config.json")
    place = f"model {folder}"
    refuse_unsupported(place, config)
    heads = _number(place, config, "num_attention_heads", "n_head")
    hidden = _number(place, config, "hidden_size", "n_embd")
    kv_heads = config.get("num_key_value_heads") or heads
    return ModelFacts(
        model_type=str(config.get("model_type")),
        layers=_number(place, config, "num_hidden_layers", "n_layer"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=config.get("head_dim") or hidden // heads,
        vocab_tokens=_number(place, config, "vocab_size"),
        max_context_tokens=_number(place, config, "max_position_embeddings", "n_positions"),
        eos_token_ids=_eos_token_ids(folder, config),
    )


def refuse_unsupported(place: str, config: dict[str, Any]) -> None:
    """Say what about a model its engine does not compute; models that only the forward gives away are found there."""
    if not config.get("model_type"):
        raise EngineError(f"{place}: config.json has no model_type; allowed: a causal language model of transformers")
    reason = _unsupported(config)
    if reason is not None:
        raise EngineError(
            f"{place} ({config['model_type']}) has {reason}; allowed: decoders with standard full attention,"
            " as Llama, Qwen2, Qwen3 and Mistral"
        )


def _unsupported(config: dict[str, Any]) -> str | None:
    if config.get("is_encoder_decoder"):
        return "an encoder"
    if config.get("quantization_config"):
        return "quantization_config, weights that need code of their own"
    for key in _LATENT:
        if config.get(key):
            return f"{key} {config[key]}, latent attention"
    for key in ("attn_logit_softcapping", "attn_logit_softcap"):
        if config.get(key):
            return f"{key} {config[key]}, soft-capped attention"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else None
    if rope_type in _SHIFTING_ROPE:
        return f"rope type {rope_type!r}, which shifts with the longest context of a batch"
    return _window(config)


def _window(config: dict[str, Any]) -> str | None:
    """A sliding window that some context could outgrow."""
    window = config.get("sliding_window")
    kinds = config.get("layer_types")
    used = config.get("use_sliding_window", True) if kinds is None else "sliding_attention" in kinds
    if kinds is not None and set(kinds) - {"full_attention", "sliding_attention"}:
        return f"layer_types {sorted(set(kinds))}"
    limit = config.get("max_position_embeddings")
    if not window or not used or (isinstance(limit, int) and window >= limit):
        return None
    return (
        f"sliding_window {window} below max_position_embeddings {limit} (lower the latter to {window} to serve it"
        " up to there)"
    )


def _eos_token_ids(folder: Path, config: dict[str, Any]) -> frozenset[int]:
    """Those of generation_config.json where there is one, as ``generate`` has it."""
    path = folder / "generation_config.json"
    found = read_json(path).get("eos_token_id") if path.is_file() else None
    if found is None:
        found = config.get("eos_token_id")
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, list) else [found])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model folder."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot read {path}: {error}; it must be a JSON file of a Hugging Face model") from error
    if not isinstance(found, dict):
        raise EngineError(f"{path} holds a {type(found).__name__}; allowed: a JSON object")
    return found


def _number(place: str, config: dict[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if type(value) is int and value > 0:
            return value
    raise EngineError(f"{place}: config.json gives no positive {' or '.join(names)}; allowed: a plain decoder")
