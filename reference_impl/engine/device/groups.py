"""Attention of decodes by gathering: rows of similar context length together, each group in one call.

The query heads of a KV head stand side by side as if they were several queries, so no KV head is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from reference_impl.engine.api import DecodeRow
from reference_impl.engine.device.pool_views import PoolViews

GROUP_BYTES = 6_000_000
"""Keys and values of one layer that a group gathers at most: attention reads them at once, from the cache."""
WASTE_BYTES = 400_000
"""Padding of a group beyond which one more group costs less: what is gathered in the 40 us of its calls."""


class _Group(NamedTuple):
    first: int
    rows: int
    context: int
    """Tokens of its longest row."""
    gathered: torch.Tensor
    mask: torch.Tensor | None
    """[rows, 1, 1, context]; None: all rows have the same length."""


class DecodeGroups:
    """The decodes of one iteration, by ascending context; their keys and values are in the pool before."""

    def __init__(self, views: PoolViews, decodes: Sequence[DecodeRow], first: int) -> None:
        """``first``: the row of the first of them."""
        self._views = views
        self._groups: list[_Group] = []
        for members in _partition(views, decodes):
            self._groups.append(_group(views, members, first))
            first += len(members)

    def attend(self, layer: int, query: torch.Tensor, scale: float | None, out: torch.Tensor) -> None:
        """Fill the decodes' rows of ``out`` [rows, heads, head_dim]; ``query`` is [heads, rows, head_dim]."""
        views = self._views
        by_row = query.transpose(0, 1)
        for first, rows, context, index, mask in self._groups:
            keys, values = views.gather(layer, index, rows)[:, :, :context].transpose(2, 3)
            queries = by_row[first : first + rows].reshape(rows, views.kv_heads, -1, views.head_dim)
            found = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
            out[first : first + rows] = found.reshape(rows, -1, views.head_dim)


def _partition(views: PoolViews, decodes: Sequence[DecodeRow]) -> Iterator[Sequence[DecodeRow]]:
    """Cut rows of ascending length where a group gets too large, or too much of it would be padding."""
    block_bytes, block_tokens = views.block_bytes, views.block_tokens
    start, used = 0, 0
    for number, row in enumerate(decodes):
        need = (row.position // block_tokens + 1) * block_bytes
        total = (number - start + 1) * need
        if number > start and (total > GROUP_BYTES or total - used - need > WASTE_BYTES):
            yield decodes[start:number]
            start, used = number, 0
        used += need
    if decodes:
        yield decodes[start:]


def _group(views: PoolViews, members: Sequence[DecodeRow], first: int) -> _Group:
    lengths = [row.position + 1 for row in members]
    context = lengths[-1]
    count = -(-context // views.block_tokens)
    table: list[int] = []
    for row in members:
        blocks = row.blocks[:count]
        table += blocks
        table += [0] * (count - len(blocks))
    mask = None if lengths[0] == context else _padding_mask(views, lengths)
    return _Group(first, len(members), context, views.index_of(table), mask)


def _padding_mask(views: PoolViews, lengths: list[int]) -> torch.Tensor:
    """-inf after each row's last token. What lies there is another sequence's KV, or nobody's: finite in any case."""
    ends = torch.tensor(lengths, device=views.device)[:, None]
    mask = torch.zeros(len(lengths), lengths[-1], dtype=views.dtype, device=views.device)
    mask.masked_fill_(torch.arange(lengths[-1], device=views.device) >= ends, float("-inf"))
    return mask[:, None, None]
