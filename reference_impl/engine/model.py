"""Loading: transformers' own modelling code, its weights mapped from the checkpoint, its attention ours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PretrainedConfig

from reference_impl.engine.api import EngineError
from reference_impl.engine.attention import ATTENTION, register
from reference_impl.engine.hf_model import build_model, first_line, read_config
from reference_impl.engine.model_facts import read_facts
from reference_impl.engine.weights import ModelSource, weight_files

_NO_WEIGHTS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")
"""Buffers that old checkpoints carry and today's models compute."""


def load_model(folder: Path, source: ModelSource) -> nn.Module:
    """The model of a folder that :func:`~reference_impl.engine.weights.ensure_weights` gave.

    On a CPU its parameters are pages of the files themselves, shared by every process that loads them: nothing may
    write to them. Raises EngineError for a model whose attention cannot be ours.
    """
    read_facts(folder)
    register()
    config = read_config(folder)
    with torch.device("meta"):
        model = build_model(config, getattr(torch, source.dtype), ATTENTION)
    _fill(model, weight_files(folder), source, folder)
    _compute_buffers(model, config, source.device)
    model.requires_grad_(False)
    return model.eval()


def _fill(model: nn.Module, files: Iterable[Path], source: ModelSource, folder: Path) -> None:
    """Put the files' tensors in the place of the empty parameters, without copying them on a CPU."""
    tensors: dict[str, torch.Tensor] = {}
    for path in files:
        try:
            tensors |= load_file(path, device=source.device)
        except (SafetensorError, OSError) as error:
            raise EngineError(f"cannot read {path}: {first_line(error)}; download it again") from error
    try:
        found = model.load_state_dict(tensors, strict=False, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise EngineError(f"checkpoint {folder} does not fit its config.json: {reason}") from error
    unexpected = [name for name in found.unexpected_keys if not name.endswith(_NO_WEIGHTS)]
    if unexpected:
        raise EngineError(f"checkpoint {folder} has weights that its model lacks: {', '.join(unexpected[:3])} ...")
    model.tie_weights()  # type: ignore[operator]
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise EngineError(f"checkpoint {folder} lacks {', '.join(missing[:3])} ...; download it again")


def _compute_buffers(model: nn.Module, config: PretrainedConfig, device: str) -> None:
    """Rebuild what no checkpoint holds: the frequencies of the rotary embeddings."""
    for name, module in list(model.named_modules()):
        if not any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            continue
        if not name.endswith("rotary_emb"):
            raise EngineError(
                f"module {name} ({type(module).__name__}) computes buffers that no checkpoint holds; allowed: rotary"
                " embeddings"
            )
        with torch.device(device):
            model.set_submodule(name, type(module)(config))
