"""Transformers' configurations and models, with their complaints as one line."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from reference_impl.engine.api import EngineError


def read_config(folder: Path) -> PretrainedConfig:
    """Raises EngineError for a model type that transformers does not know; no code of the folder is run."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise EngineError(
            f"model {folder}: {first_line(error)}; allowed: a model type that transformers itself knows"
        ) from error
    assert isinstance(config, PretrainedConfig)
    return config


def build_model(config: PretrainedConfig, dtype: torch.dtype, attention: str | None = None) -> nn.Module:
    """A model with parameters as initialised by transformers, on torch's current default device."""
    options = {} if attention is None else {"attn_implementation": attention}
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, **options)
    except Exception as error:
        raise EngineError(
            f"model type {config.model_type!r} cannot run here: {first_line(error)}; allowed: causal language models"
            " whose attention goes through transformers' AttentionInterface, as Llama, Qwen2, Qwen3 and Mistral"
        ) from error
    assert isinstance(model, nn.Module)
    return model


def first_line(error: Exception) -> str:
    """Of its text, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
