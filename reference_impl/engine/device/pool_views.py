"""A KV pool as attention sees it: by layer, for writing rows and gathering blocks."""

from __future__ import annotations

import torch

from reference_impl.engine.kv_cache import KvPool

CAUSAL_ROWS = 128
"""Rows of the mask that is kept."""


class PoolViews:
    """Views of a pool by layer, and the memory that gathers go to; made once."""

    def __init__(self, pool: KvPool) -> None:
        size = pool.layout
        self.block_tokens, self.kv_heads, self.head_dim = size.block_tokens, size.kv_heads, size.head_dim
        self.blocks = pool.blocks
        self.block_bytes = 2 * size.piece_bytes
        """Keys and values of one block in one layer."""
        self.device = pool.tensor.device
        self.dtype = pool.tensor.dtype
        self._by_block = [layer.view(2 * pool.blocks, -1) for layer in pool.tensor]
        self._by_slot = [layer.view(2, -1, size.kv_heads, size.head_dim) for layer in pool.tensor]
        self._scratch = pool.tensor.new_empty(0)
        self._causal = pool.tensor.new_empty(0, 0)

    def layer(self, layer: int) -> torch.Tensor:
        """[2, slots, kv_heads, head_dim]: keys, then values; slot = block * block_tokens + offset."""
        found: torch.Tensor = self._by_slot[layer]
        return found

    def write(self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put the rows of ``key`` and ``value`` [kv_heads, rows, head_dim] where they belong."""
        target = self._by_slot[layer]
        target[0].index_copy_(0, slots, key.transpose(0, 1))
        target[1].index_copy_(0, slots, value.transpose(0, 1))

    def index_of(self, blocks: list[int]) -> torch.Tensor:
        """What :meth:`gather` takes: the rows of keys, then of values, of these blocks."""
        keys = torch.tensor(blocks, device=self.device)
        return torch.cat((keys, keys + self.blocks))

    def gather(self, layer: int, index: torch.Tensor, rows: int) -> torch.Tensor:
        """Keys and values [2, rows, tokens, kv_heads, head_dim] of ``rows`` sequences; valid until the next call."""
        source = self._by_block[layer]
        count, width = index.shape[0], source.shape[1]
        if self._scratch.shape[0] < count * width:
            self._scratch = source.new_empty(count * width)
        out = self._scratch[: count * width].view(count, width)
        torch.index_select(source, 0, index, out=out)
        return out.view(2, rows, -1, self.kv_heads, self.head_dim)

    def causal_mask(self, rows: int, tokens: int) -> torch.Tensor:
        """[rows, tokens]: 0 where the last ``rows`` of ``tokens`` may look, -inf after each. Not to be changed.

        A GPU gets one of its own each time: fused kernels refuse a view that begins at any address.
        """
        if rows > CAUSAL_ROWS or self.device.type != "cpu":
            return self._causal_mask(rows, tokens)
        if self._causal.shape[1] < tokens:
            self._causal = self._causal_mask(CAUSAL_ROWS, max(1024, 1 << (tokens - 1).bit_length()))
        return self._causal[CAUSAL_ROWS - rows :, self._causal.shape[1] - tokens :]

    def _causal_mask(self, rows: int, tokens: int) -> torch.Tensor:
        mask = torch.full((rows, tokens), float("-inf"), dtype=self.dtype, device=self.device)
        return mask.triu_(tokens - rows + 1)
