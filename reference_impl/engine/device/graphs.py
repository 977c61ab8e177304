"""Decode iterations as CUDA graphs: one recording per batch size, replayed with new contents of the same tensors.

Batches between two sizes are filled up with copies of their first row, which compute and write what that row does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from reference_impl.engine.batch import Arrangement
from reference_impl.engine.device.chunks import Chunks
from reference_impl.engine.device.forward import forward
from reference_impl.engine.device.pool_views import PoolViews
from reference_impl.engine.device.ragged import RaggedAttention
from reference_impl.engine.device.tables import PagedDecode, TableDecodes, block_table, context_lengths

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
RECORDED_AT_START = 64
"""Larger sizes are recorded when they first occur."""

Capture = Callable[[Callable[[], torch.Tensor]], tuple[Callable[[], None], torch.Tensor]]
"""Records a computation: gives what replays it, and the tensor that then holds its result."""


class _Inputs(NamedTuple):
    """The tensors that a recording reads."""

    tokens: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    tables: torch.Tensor
    lengths: torch.Tensor

    def fill(self, arrangement: Arrangement, block_tokens: int) -> None:
        """Make them those of a batch of decodes."""
        _fill(self.tokens[0], torch.tensor(arrangement.tokens))
        _fill(self.positions[0], torch.tensor(arrangement.positions))
        _fill(self.slots, torch.tensor(arrangement.slots))
        _fill(self.lengths, context_lengths(arrangement.decodes))
        table = block_table(arrangement.decodes, block_tokens)
        _fill(self.tables[:, : table.shape[1]], table)


class _Recording(NamedTuple):
    inputs: _Inputs
    replay: Callable[[], None]
    logits: torch.Tensor


class DecodeGraphs:
    """Recorded decode forwards of one model over one pool."""

    def __init__(
        self, model: nn.Module, views: PoolViews, kernel: PagedDecode, blocks_per_row: int, capture: Capture
    ) -> None:
        """``blocks_per_row``: KV blocks of the longest context."""
        self._model = model
        self._views = views
        self._kernel = kernel
        self._blocks_per_row = blocks_per_row
        self._capture = capture
        self._recordings: dict[int, _Recording] = {}

    def record_small_sizes(self) -> None:
        """Before anything is served: recording computes a batch, which writes to the pool's first slot.

        The largest first: the others then reuse its memory.
        """
        for size in reversed([size for size in SIZES if size <= RECORDED_AT_START]):
            self._recordings[size] = self._record(self._inputs(size))

    def fits(self, arrangement: Arrangement) -> bool:
        """Whether this iteration can be replayed: decodes only, and not too many."""
        return not arrangement.chunks and 0 < len(arrangement.decodes) <= SIZES[-1]

    def logits(self, arrangement: Arrangement) -> torch.Tensor:
        """[yielded tokens, vocabulary], in the outcome's order."""
        size = next(size for size in SIZES if size >= len(arrangement.decodes))
        recording = self._recordings.get(size)
        inputs = self._inputs(size) if recording is None else recording.inputs
        inputs.fill(arrangement, self._views.block_tokens)
        if recording is None:  # it computes this very batch, so that what it writes is what belongs there
            recording = self._recordings[size] = self._record(inputs)
        recording.replay()
        return recording.logits[torch.tensor(arrangement.keep, device=self._views.device)]

    def _inputs(self, size: int) -> _Inputs:
        device = self._views.device
        tokens, positions = torch.zeros(2, 1, size, dtype=torch.long, device=device)
        slots = torch.zeros(size, dtype=torch.long, device=device)
        tables = torch.zeros(size, self._blocks_per_row, dtype=torch.int32, device=device)
        lengths = torch.ones(size, dtype=torch.int32, device=device)
        return _Inputs(tokens, positions, slots, tables, lengths)

    def _record(self, inputs: _Inputs) -> _Recording:
        tokens, positions, slots, tables, lengths = inputs
        decodes = TableDecodes(self._views, self._kernel, tables, lengths, 0)
        paged = RaggedAttention(self._views, slots, Chunks(self._views, ()), decodes)
        keep = torch.arange(tokens.shape[1], device=self._views.device)
        replay, logits = self._capture(partial(forward, self._model, tokens, positions, keep, paged))
        return _Recording(inputs, replay, logits)


def _fill(target: torch.Tensor, rows: torch.Tensor) -> None:
    """Copy rows to the front, and the first of them to the rest."""
    target[: rows.shape[0]].copy_(rows)
    if target.shape[0] > rows.shape[0]:
        target[rows.shape[0] :] = target[0]
