"""The attention function that transformers' modelling code calls in place of its own.

It is registered without a mask function, so that the modelling code builds no mask; what a row may see is known to the
iteration's attention object, which travels as the keyword argument ``paged`` of the model's forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from transformers import AttentionInterface

from reference_impl.engine.api import EngineError

ATTENTION = "semiflow_paged"
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "head_mask")


class PagedAttention(Protocol):
    """Attention of one iteration's rows over the KV pool."""

    after_layer: Callable[[int], None] | None
    """Told each layer once its keys and values are written and its attention is computed."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """Write the rows' keys and values, and return ``[rows, heads, head_dim]``.

        ``query`` is ``[heads, rows, head_dim]``, ``key`` and ``value`` are ``[kv_heads, rows, head_dim]``.
        """
        ...


def register() -> None:
    """Make the function known to transformers under :data:`ATTENTION`; again is harmless."""
    AttentionInterface.register(ATTENTION, _attention)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    paged: PagedAttention,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers expects: ``[1, rows, heads, head_dim]``, and no weights.

    A ``sliding_window`` among the options is allowed: :mod:`~reference_impl.engine.model_facts` has checked that no
    context outgrows it.
    """
    for name in _UNSUPPORTED:
        if options.get(name) is not None:
            raise EngineError(f"{type(module).__name__} asks for attention with {name}; allowed: plain attention")
    if attention_mask is not None or options.get("is_causal") is False:
        raise EngineError(
            f"{type(module).__name__} brings a mask of its own; allowed: causal attention over all tokens"
        )
    if value.shape[-1] != query.shape[-1]:
        raise EngineError(
            f"{type(module).__name__} has values of {value.shape[-1]} and queries of {query.shape[-1]} numbers;"
            " allowed: one head_dim"
        )
    layer: int = module.layer_idx  # type: ignore[assignment]
    out = paged.attend(layer, query[0], key[0], value[0], scaling)
    if paged.after_layer is not None:
        paged.after_layer(layer)
    return out.unsqueeze(0), None
