"""A fused kernel for decodes over the paged cache, in Triton. Imports triton; nothing imports this where there is none.

One program computes the query heads of one KV head of one row over one part of its context (flash decoding), walking
the block table itself; a second kernel joins the parts. Sizes that vary between iterations are read from memory, so a
launch can be captured in a CUDA graph.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

TILE_TOKENS = 64
_SMALLEST_DOT = 16


# Triton reads annotations: one on a plain parameter would fix its width. Hence kernels are annotated at constants only.


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _attend_part(  # type: ignore[no-untyped-def]
    query, kv, tables, lengths, sums, stats, scale, values_at,
    query_row, query_head, table_row, kv_heads, group,
    head_dim: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,  # noqa: N803
    BLOCK_TOKENS: tl.constexpr, TILE: tl.constexpr, PARTS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    share = tl.cdiv(tl.cdiv(length, TILE), PARTS) * TILE
    low = part * share
    high = tl.minimum(low + share, length)
    heads, dims = tl.arange(0, GROUP), tl.arange(0, DIM)
    real = (heads[:, None] < group) & (dims[None, :] < head_dim)
    head = kv_head * group + heads
    asked = tl.load(query + row * query_row + head[:, None] * query_head + dims[None, :], mask=real, other=0.0)
    best = tl.full([GROUP], float("-inf"), tl.float32)
    weight = tl.zeros([GROUP], tl.float32)
    total = tl.zeros([GROUP, DIM], tl.float32)
    for start in range(low, high, TILE):
        tokens = start + tl.arange(0, TILE)
        inside = tokens < high
        block = tl.load(tables + row * table_row + tokens // BLOCK_TOKENS, mask=inside, other=0).to(tl.int64)
        at = ((block * BLOCK_TOKENS + tokens % BLOCK_TOKENS) * kv_heads + kv_head) * head_dim
        keys = tl.load(kv + at[None, :] + dims[:, None], mask=inside[None, :] & (dims[:, None] < head_dim), other=0.0)
        scores = tl.dot(asked, keys, input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        chance = tl.exp(scores - higher[:, None])
        shrink = tl.exp(best - higher)
        values = tl.load(
            kv + values_at + at[:, None] + dims[None, :], mask=inside[:, None] & (dims[None, :] < head_dim), other=0.0
        )
        found = tl.dot(chance.to(values.dtype), values, input_precision="ieee")
        total = total * shrink[:, None] + found
        weight = weight * shrink + tl.sum(chance, 1)
        best = higher
    place = (row * kv_heads * group + head) * PARTS + part
    tl.store(sums + place[:, None] * head_dim + dims[None, :], total, mask=real)
    tl.store(stats + place * 2, best, mask=heads < group)
    tl.store(stats + place * 2 + 1, weight, mask=heads < group)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _join_parts(  # type: ignore[no-untyped-def]
    sums,
    stats,
    out,
    head_dim: tl.constexpr,
    DIM: tl.constexpr,  # noqa: N803
    PARTS: tl.constexpr,  # noqa: N803
):
    place = tl.program_id(0)
    parts, dims = tl.arange(0, PARTS), tl.arange(0, DIM)
    best = tl.load(stats + (place * PARTS + parts) * 2)
    weight = tl.load(stats + (place * PARTS + parts) * 2 + 1)
    factor = tl.where(weight > 0, tl.exp(best - tl.max(best, 0)), 0.0)
    rows = (place * PARTS + parts)[:, None] * head_dim
    total = tl.load(sums + rows + dims[None, :], mask=dims[None, :] < head_dim, other=0.0)
    found = tl.sum(total * factor[:, None], 0) / tl.sum(weight * factor, 0)
    tl.store(out + place * head_dim + dims, found.to(out.dtype.element_ty), mask=dims < head_dim)


def paged_decode(
    query: torch.Tensor, kv: torch.Tensor, tables: torch.Tensor, lengths: torch.Tensor, scale: float, block_tokens: int
) -> torch.Tensor:
    """One token per row: ``query`` [rows, heads, head_dim] over ``kv`` [2, slots, kv_heads, head_dim].

    ``tables`` [rows, blocks] int32 and ``lengths`` [rows] int32, each 1 or more. Returns [rows, heads, head_dim].
    """
    rows, heads, head_dim = query.shape
    kv_heads = kv.shape[2]
    parts = _parts(rows * kv_heads, tables.shape[1] * block_tokens)
    sums = torch.empty(rows, heads, parts, head_dim, dtype=torch.float32, device=query.device)
    stats = torch.empty(rows, heads, parts, 2, dtype=torch.float32, device=query.device)
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    group, dim = heads // kv_heads, max(_SMALLEST_DOT, triton.next_power_of_2(head_dim))
    _attend_part[(rows, kv_heads, parts)](
        query, kv, tables, lengths, sums, stats, scale, kv.stride(0),
        query.stride(0), query.stride(1), tables.stride(0), kv_heads, group,
        head_dim=head_dim, GROUP=max(_SMALLEST_DOT, triton.next_power_of_2(group)), DIM=dim,
        BLOCK_TOKENS=block_tokens, TILE=TILE_TOKENS, PARTS=parts,
    )  # fmt: skip
    _join_parts[(rows * heads,)](sums, stats, out, head_dim=head_dim, DIM=dim, PARTS=parts)
    return out


def _parts(programs: int, longest: int) -> int:
    """Into how many parts a context is split: enough programs to fill a GPU, a power of two, no part below a tile."""
    parts = 1
    while parts * programs < 256 and parts * TILE_TOKENS < longest and parts < 32:
        parts *= 2
    return parts
