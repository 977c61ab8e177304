"""Before a model is served: a few tokens through the paged cache must give what its own attention gives.

Whatever a model does that no config key tells (another attention, layers without any, state between tokens) is found
here, when it is loaded. It also warms the process up.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from reference_impl.engine.api import ChunkRow, DecodeRow, EngineError, ForwardBatch
from reference_impl.engine.attention import ATTENTION
from reference_impl.engine.batch import arrange
from reference_impl.engine.device.forward import logits_of
from reference_impl.engine.device.pool_views import PoolViews
from reference_impl.engine.device.ragged import gathered
from reference_impl.engine.kv_cache import KvLayout, KvPool
from reference_impl.engine.model_facts import ModelFacts

_TOKENS, _CUTS = 24, (0, 11, 23)
"""Positions where the tokens are cut: two chunks and a decode."""
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15, "float16": 0.05}
"""Allowed difference of a logit, relative to the largest one."""


def try_out(model: nn.Module, facts: ModelFacts, layout: KvLayout, device: str) -> None:
    """Raises EngineError where the model's logits over the paged cache are not its own."""
    tokens = [1 + 7919 * number % (facts.vocab_tokens - 1) for number in range(_TOKENS)]
    with torch.inference_mode():
        paged, layers = _paged_logits(model, layout, tokens, device)
        name = type(model).__name__
        if layers != list(range(layout.layers)):
            raise EngineError(
                f"{name} calls attention for layers {layers} of {layout.layers}; allowed: standard attention in each"
            )
        dense = _dense_logits(model, tokens, device)
    difference = float((paged - dense).abs().max())
    if not difference <= _TOLERANCE[layout.dtype] * max(1.0, float(dense.abs().max())):
        raise EngineError(
            f"{name}'s logits over a paged cache are off by {difference:.3g}; allowed: models whose attention is plain"
            " causal attention over all tokens, as Llama, Qwen2, Qwen3 and Mistral"
        )


def _paged_logits(model: nn.Module, layout: KvLayout, tokens: list[int], device: str) -> tuple[torch.Tensor, list[int]]:
    count = -(-_TOKENS // layout.block_tokens)
    views = PoolViews(KvPool.create(None, layout, count, device))
    blocks = range(count)
    found: list[torch.Tensor] = []
    layers: list[int] = []
    for start, end in pairwise(_CUTS):
        chunk = ChunkRow(0, tokens[start:end], start, blocks, yields=True)
        arranged = arrange(ForwardBatch(0, (chunk,), ()), layout.block_tokens, int)
        found.append(logits_of(model, arranged, gathered(views, arranged), views.device))
    last = DecodeRow(0, tokens[-1], _TOKENS - 1, blocks)
    arranged = arrange(ForwardBatch(0, (), (last,)), layout.block_tokens, int)
    found.append(logits_of(model, arranged, gathered(views, arranged, layers.append), views.device))
    return torch.cat(found), layers


def _dense_logits(model: nn.Module, tokens: list[int], device: str) -> torch.Tensor:
    """Of the same positions, by transformers' own attention."""
    keep = torch.tensor([end - 1 for end in (*_CUTS[1:], _TOKENS)], device=device)
    _use(model, "eager")
    try:
        found = model(input_ids=torch.tensor([tokens], device=device), use_cache=False, logits_to_keep=keep)
    finally:
        _use(model, ATTENTION)
    logits: torch.Tensor = found.logits[0]
    return logits


def _use(model: nn.Module, attention: str) -> None:
    model.set_attn_implementation(attention)  # type: ignore[operator]
