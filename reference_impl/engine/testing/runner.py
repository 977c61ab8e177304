"""What a worker computes when there is no model: the fake one's tokens, from a real KV pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from reference_impl.engine.api import (
    ChunkRow,
    DecodeRow,
    EngineError,
    ForwardBatch,
    Outcome,
    SampledToken,
    SamplingParams,
)
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.progress import LayerProgress
from reference_impl.engine.testing.model import kv_of, next_token


class FakeRunner:
    """A synchronous runner; says so where a batch asks for what cannot be.

    ``iteration_s`` is how long an iteration lasts, in seconds of a thread that waits.
    """

    def __init__(
        self,
        pool: KvFile,
        clock: Callable[[], float],
        iteration_s: float | Callable[[ForwardBatch], float] = 0.0,
        progress: LayerProgress | None = None,
    ) -> None:
        self._cells = pool.pieces.view(np.uint64)
        self._size = pool.layout.block_tokens
        self._clock = clock
        self._iteration_s = iteration_s
        self._progress = progress
        self._params: dict[int, SamplingParams] = {}
        self._last: dict[int, int] = {}
        """What the iteration before yielded."""

    def admit(self, request_id: int, params: SamplingParams) -> None:
        self._params[request_id] = params

    def forget(self, request_ids: Sequence[int]) -> None:
        for request_id in request_ids:
            del self._params[request_id]

    @property
    def known(self) -> set[int]:
        """Requests that were admitted and not forgotten."""
        return set(self._params)

    def run(self, batch: ForwardBatch) -> Outcome:
        start_s = self._clock()
        rows: list[ChunkRow | DecodeRow] = [*batch.chunks, *batch.decodes]
        inputs = [self._input(row) for row in rows]
        wanted_s = self._iteration_s(batch) if callable(self._iteration_s) else self._iteration_s
        if self._progress is not None:
            self._progress.begin(batch.ordinal)
        layer_s = wanted_s / len(self._cells)
        for layer in range(len(self._cells)):
            for row, (tokens, start) in zip(rows, inputs, strict=True):
                self._write(layer, row.blocks, tokens, start)
            if layer_s:
                threading.Event().wait(layer_s)
            if self._progress is not None:
                self._progress.wrote(layer)
        yielding = [
            (row, start + len(tokens))
            for row, (tokens, start) in zip(rows, inputs, strict=True)
            if not isinstance(row, ChunkRow) or row.yields
        ]
        sampled = tuple(SampledToken(row.request_id, self._next(row.blocks, end)) for row, end in yielding)
        self._last = {token.request_id: token.token for token in sampled}
        return Outcome(batch.ordinal, start_s, self._clock(), sampled)

    def _input(self, row: ChunkRow | DecodeRow) -> tuple[Sequence[int], int]:
        """The row's tokens and the position of the first of them."""
        if row.request_id not in self._params:
            raise EngineError(f"request {row.request_id} has a row in a batch, and was never admitted")
        if isinstance(row, ChunkRow):
            tokens, start = row.tokens, row.start
        else:
            tokens, start = (self._last[row.request_id] if row.token is None else row.token,), row.position
        needed = -(-(start + len(tokens)) // self._size)
        if not tokens or len(row.blocks) < needed or len(set(row.blocks)) != len(row.blocks):
            raise EngineError(f"request {row.request_id} needs {needed} blocks, all different, and has {row.blocks}")
        return tokens, start

    def _write(self, layer: int, blocks: Sequence[int], tokens: Sequence[int], start: int) -> None:
        places = np.arange(start, start + len(tokens))
        block = np.asarray(blocks)[places // self._size]
        self._cells[layer][:, block, places % self._size] = kv_of(tokens, start)[layer]

    def _next(self, blocks: Sequence[int], end: int) -> int:
        used = np.asarray(blocks[: -(-end // self._size)])
        context = self._cells[:, :, used].reshape(len(self._cells), 2, -1)
        return next_token(context[:, :, :end])
