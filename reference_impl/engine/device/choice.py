"""Which device computes a model's forwards, and the proof that this model can be served at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from reference_impl.engine.api import EngineError
from reference_impl.engine.batch import Arrangement
from reference_impl.engine.device.cpu import CpuDevice
from reference_impl.engine.device.cuda import CudaDevice, capture_graph
from reference_impl.engine.device.tables import fused_kernel
from reference_impl.engine.device.tryout import try_out
from reference_impl.engine.kv_cache import KvPool
from reference_impl.engine.model_facts import ModelFacts
from reference_impl.engine.weights import ModelSource


class Device(Protocol):
    """Computes forwards of one model over one pool."""

    def logits(self, arrangement: Arrangement, after_layer: Callable[[int], None] | None) -> torch.Tensor:
        """[yielded tokens, vocabulary], in the outcome's order; ``after_layer`` is called for each layer, in order."""
        ...


def check_device(device: str) -> None:
    """Raises EngineError for a device that is not here."""
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("device 'cuda' needs a GPU and a torch built for it; allowed here: device cpu")


def make_device(model: nn.Module, facts: ModelFacts, source: ModelSource, pool: KvPool) -> Device:
    """Raises EngineError where model, pool and device do not fit together."""
    layout = facts.kv_layout(pool.layout.block_tokens, source.dtype)
    if layout != pool.layout:
        raise EngineError(f"the KV pool has {pool.layout}; this model needs {layout}")
    try_out(model, facts, layout, source.device)
    if source.device == "cpu":
        return CpuDevice(model, pool)
    return CudaDevice(model, pool, facts, kernel=fused_kernel(), capture=capture_graph)
