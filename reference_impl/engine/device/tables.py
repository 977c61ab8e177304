"""Attention of decodes by a fused kernel that walks block tables."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import torch

from reference_impl.engine.api import DecodeRow
from reference_impl.engine.device.pool_views import PoolViews


class PagedDecode(Protocol):
    """One token per row over a paged cache."""

    def __call__(
        self,
        query: torch.Tensor,
        kv: torch.Tensor,
        tables: torch.Tensor,
        lengths: torch.Tensor,
        scale: float,
        block_tokens: int,
    ) -> torch.Tensor:
        """``query`` [rows, heads, head_dim] over ``kv`` [2, slots, kv_heads, head_dim]; both tables are int32."""
        ...


def fused_kernel() -> PagedDecode | None:
    """The Triton kernel, where Triton is installed."""
    if find_spec("triton") is None:
        return None
    from reference_impl.engine.device.triton_paged import paged_decode

    return paged_decode


class TableDecodes:
    """The decodes of one iteration; their keys and values are in the pool before."""

    def __init__(
        self, views: PoolViews, kernel: PagedDecode, tables: torch.Tensor, lengths: torch.Tensor, first: int
    ) -> None:
        """``tables`` [rows, blocks] and ``lengths`` [rows] of the rows from ``first`` on."""
        self._views = views
        self._kernel = kernel
        self._tables = tables
        self._lengths = lengths
        self._first = first

    def attend(self, layer: int, query: torch.Tensor, scale: float | None, out: torch.Tensor) -> None:
        """Fill the rows of ``out`` [rows, heads, head_dim] from ``first`` on; ``query`` is [heads, rows, head_dim]."""
        if not self._lengths.shape[0]:
            return
        queries = query.transpose(0, 1)[self._first :]
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        kv = self._views.layer(layer)
        out[self._first :] = self._kernel(queries, kv, self._tables, self._lengths, factor, self._views.block_tokens)


def block_table(decodes: Sequence[DecodeRow], block_tokens: int) -> torch.Tensor:
    """[rows, blocks of the longest] int32 in main memory, filled up with zeros."""
    counts = [row.position // block_tokens + 1 for row in decodes]
    width = max(counts, default=0)
    table = [[*row.blocks[:count], *[0] * (width - count)] for row, count in zip(decodes, counts, strict=True)]
    return torch.tensor(table, dtype=torch.int32).view(len(decodes), width)


def context_lengths(decodes: Sequence[DecodeRow]) -> torch.Tensor:
    """[rows] int32: tokens that each row sees, its own included."""
    return torch.tensor([row.position + 1 for row in decodes], dtype=torch.int32)
