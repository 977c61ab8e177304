"""Attention of one iteration's rows: chunks and decodes side by side over the paged cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from reference_impl.engine.batch import Arrangement
from reference_impl.engine.device.chunks import Chunks
from reference_impl.engine.device.groups import DecodeGroups
from reference_impl.engine.device.pool_views import PoolViews


class ChunkAttention(Protocol):
    """Fills the chunks' rows of ``out`` [rows, heads, head_dim]."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None,
        out: torch.Tensor,
    ) -> None: ...


class DecodeAttention(Protocol):
    """Fills the decodes' rows of ``out`` [rows, heads, head_dim] from what is in the pool."""

    def attend(self, layer: int, query: torch.Tensor, scale: float | None, out: torch.Tensor) -> None: ...


class RaggedAttention:
    """See :class:`~reference_impl.engine.attention.PagedAttention`."""

    def __init__(
        self,
        views: PoolViews,
        slots: torch.Tensor,
        chunks: ChunkAttention,
        decodes: DecodeAttention,
        after_layer: Callable[[int], None] | None = None,
    ) -> None:
        self.after_layer = after_layer
        self._views = views
        self._slots = slots
        self._chunks = chunks
        self._decodes = decodes

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """[rows, heads, head_dim]."""
        self._views.write(layer, self._slots, key, value)
        out = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        self._chunks.attend(layer, query, key, value, scale, out)
        self._decodes.attend(layer, query, scale, out)
        return out


def gathered(
    views: PoolViews, arrangement: Arrangement, after_layer: Callable[[int], None] | None = None
) -> RaggedAttention:
    """By gathering blocks and calling torch's own attention: portable, and the fastest on a CPU."""
    return RaggedAttention(
        views,
        torch.tensor(arrangement.slots, device=views.device),
        Chunks(views, arrangement.chunks),
        DecodeGroups(views, arrangement.decodes, arrangement.first_decode),
        after_layer,
    )
