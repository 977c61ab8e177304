"""Attention of chunks by torch's own variable-length attention over block tables, where this torch and GPU have it.

torch 2.12 brought block tables to ``varlen_attn``; which page sizes a GPU takes is found by trying.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch

from reference_impl.engine.batch import ChunkSpan
from reference_impl.engine.device.chunks import Chunks
from reference_impl.engine.device.pool_views import PoolViews

Varlen = Callable[..., Any]
_TOLERANCE = 0.05


class VarlenChunks:
    """All chunks of one iteration in one call; their keys and values are in the pool before :meth:`attend`."""

    def __init__(self, views: PoolViews, varlen: Varlen, spans: Sequence[ChunkSpan]) -> None:
        self._views = views
        self._varlen = varlen
        self._rows = sum(span.rows for span in spans)
        ends = [span.start + span.rows for span in spans]
        counts = [-(-end // views.block_tokens) for end in ends]
        width = max(counts, default=0)
        table = [[*span.blocks[:count], *[0] * (width - count)] for span, count in zip(spans, counts, strict=True)]
        starts = [0, *accumulate(span.rows for span in spans)]
        self._starts, self._ends, self._table = (
            torch.tensor(numbers, dtype=torch.int32, device=views.device) for numbers in (starts, ends, table)
        )
        self._longest = max((span.rows for span in spans), default=0), max(ends, default=0)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None,
        out: torch.Tensor,
    ) -> None:
        """Fill the first rows of ``out`` [rows, heads, head_dim]; ``query`` is [heads, rows, head_dim]."""
        del key, value
        if not self._rows:
            return
        views = self._views
        keys, values = views.layer(layer).view(2, views.blocks, views.block_tokens, views.kv_heads, views.head_dim)
        out[: self._rows] = self._varlen(
            query.transpose(0, 1)[: self._rows].contiguous(),
            keys,
            values,
            self._starts,
            None,
            *self._longest,
            scale=scale,
            window_size=(-1, 0),
            enable_gqa=query.shape[0] != views.kv_heads,
            seqused_k=self._ends,
            block_table=self._table,
        )


def paged_varlen(views: PoolViews, heads: int, varlen: Varlen | None = None) -> Varlen | None:
    """``varlen_attn`` if it takes block tables and gives, over this pool's first layer, what gathering gives."""
    found = varlen or _find()
    if found is None or views.blocks < 4:
        return None
    spans, slots = _sample(views)
    options = {"dtype": views.dtype, "device": views.device}
    query = torch.randn(heads, slots.shape[0], views.head_dim, **options)  # type: ignore[call-overload]
    key, value = torch.randn(2, views.kv_heads, slots.shape[0], views.head_dim, **options)  # type: ignore[call-overload]
    wanted, given = query.new_zeros(2, slots.shape[0], heads, views.head_dim)
    views.write(0, slots, key, value)
    Chunks(views, spans).attend(0, query, key, value, None, wanted)
    try:
        VarlenChunks(views, found, spans).attend(0, query, key, value, None, given)
    except (RuntimeError, ValueError):  # how torch says that this GPU, type or page size is not for it
        return None
    finally:
        views.layer(0).zero_()
    return found if bool((wanted - given).abs().max() <= _TOLERANCE) else None


def _sample(views: PoolViews) -> tuple[tuple[ChunkSpan, ...], torch.Tensor]:
    """A prompt of one block, and a chunk of a block and a token after a block of zeros; their slots."""
    size = views.block_tokens
    spans = ChunkSpan(0, size, 0, (0,)), ChunkSpan(size, size + 1, size, (1, 2, 3))
    return spans, torch.tensor([*range(size), *range(2 * size, 3 * size + 1)], device=views.device)


def _find() -> Varlen | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "block_table" in inspect.signature(varlen_attn).parameters else None
