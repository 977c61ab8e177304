"""Making safetensors: weights drawn from a seed, or a checkpoint in another dtype."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from reference_impl.engine.hf_model import build_model, read_config
from reference_impl.engine.kv_cache import Dtype


def draw(folder: Path, seed: int, dtype: Dtype, target: Path) -> None:
    """Initialise the model of ``folder`` as transformers does, from ``seed``, and save it.

    Always drawn in float32 and rounded then, so that one seed means one model in every dtype.
    """
    config = read_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config, torch.float32)
    tensors: dict[str, torch.Tensor] = {}
    stored: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in stored:  # tied weights are one tensor under two names; the first is kept
            tensors[name] = _as(tensor, getattr(torch, dtype))
            stored.add(tensor.data_ptr())
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def convert(files: list[Path], dtype: Dtype, target: Path) -> None:
    """Copy each shard with its floating-point tensors in ``dtype``; at most one shard is in memory."""
    wanted = getattr(torch, dtype)
    weight_map: dict[str, str] = {}
    for path in files:
        with safe_open(path, framework="pt") as shard:
            tensors = {name: _as(shard.get_tensor(name), wanted) for name in shard.keys()}  # noqa: SIM118
        save_file(tensors, target / path.name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, path.name)
    if len(files) > 1:
        text = json.dumps({"metadata": {}, "weight_map": weight_map})
        (target / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _as(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
