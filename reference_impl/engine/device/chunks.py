"""Attention of prefill chunks: one by one, over their own tokens and, where they do not start a prompt, the pool's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from reference_impl.engine.batch import ChunkSpan
from reference_impl.engine.device.pool_views import CAUSAL_ROWS, PoolViews


class _Chunk(NamedTuple):
    span: ChunkSpan
    gathered: torch.Tensor | None
    """Its blocks; None: it starts at its prompt's first token and needs nothing of the pool."""


class Chunks:
    """The chunks of one iteration; their keys and values are in the pool before :meth:`attend`."""

    def __init__(self, views: PoolViews, spans: Sequence[ChunkSpan]) -> None:
        self._views = views
        self._chunks = [_Chunk(span, _index(views, span)) for span in spans]
        self._on_cpu = views.device.type == "cpu"

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None,
        out: torch.Tensor,
    ) -> None:
        """Fill the chunks' rows of ``out`` [rows, heads, head_dim]; the others are [(kv_)heads, rows, head_dim]."""
        for (first, rows, start, _), index in self._chunks:
            if index is None:
                keys, values = key[None, :, first : first + rows], value[None, :, first : first + rows]
            else:
                keys, values = self._views.gather(layer, index, 1).transpose(2, 3)
            tile = CAUSAL_ROWS if self._on_cpu else rows  # a CPU's kernel does not skip tokens that no row may see
            for low in range(0, rows, tile):
                count = min(tile, rows - low)
                seen = start + low + count
                queries = query[None, :, first + low : first + low + count]
                found = self._tile(queries, keys[:, :, :seen], values[:, :, :seen], scale)
                out[first + low : first + low + count] = found[0].transpose(0, 1)

    def _tile(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
        """The queries are the last of the tokens."""
        rows, tokens = query.shape[2], key.shape[2]
        if rows in (1, tokens):
            return scaled_dot_product_attention(
                query, key, value, is_causal=rows > 1, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
            )
        if not self._on_cpu:  # with a mask, the fused kernels of a GPU want as many heads of keys as of queries
            key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
        mask = self._views.causal_mask(rows, tokens)
        gqa = query.shape[1] != key.shape[1]
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=gqa)


def _index(views: PoolViews, span: ChunkSpan) -> torch.Tensor | None:
    if not span.start:
        return None
    return views.index_of(list(span.blocks[: -(-(span.start + span.rows) // views.block_tokens)]))
