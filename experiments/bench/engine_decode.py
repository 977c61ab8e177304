"""A decode iteration of the engine against the bare forward of the same model over the same batch."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from statistics import median
from typing import Any

from experiments.bench import engine_hf
from experiments.bench.engine_host import BLOCK_TOKENS, Host
from experiments.bench.figures import Figure
from reference_impl.engine.api import ChunkRow, DecodeRow, ForwardBatch, SamplingParams

_CONTEXT_TOKENS = 256
_STEPS = 24
_ROWS = (1, 4, 16, 64)


def decode_overhead(folder: Path, quick: bool) -> list[Figure]:
    """The engine's iteration builds its tensors, runs, samples greedily and reports; the forward gives logits."""
    rows = _ROWS[:2] if quick else _ROWS
    steps = 6 if quick else _STEPS
    model = engine_hf.load(folder)
    blocks = -(-(_CONTEXT_TOKENS + steps + 1) // BLOCK_TOKENS)
    host = Host(folder, max(rows) * blocks)
    worst, notes = 0.0, []
    for count in rows:
        ours, bare = _in_turn([_Ours(host, count, blocks), _Bare(model, count)], steps)
        worst = max(worst, ours / bare)
        notes.append(f"{count} rows {ours * 1e3:.1f} against {bare * 1e3:.1f} ms")
    note = f"contexts of {_CONTEXT_TOKENS} tokens; {'; '.join(notes)}"
    name = "decode iteration over the bare forward of the same batch, worst batch size"
    return [Figure(name, worst, "x", "lower", None, steps, floor=1.25, aim=1.0, note=note)]


class _Ours:
    """Decodes of ``count`` requests whose prompts are in the pool."""

    def __init__(self, host: Host, count: int, blocks: int) -> None:
        self._runner = host.runner
        self._position = _CONTEXT_TOKENS
        self._tables = [list(range(row * blocks, (row + 1) * blocks)) for row in range(count)]
        for row, table in enumerate(self._tables):
            self._runner.admit(row, SamplingParams(1, temperature=0.0))
            chunk = ChunkRow(row, [3 + row] * _CONTEXT_TOKENS, 0, table, True)
            self._runner.run(ForwardBatch(0, (chunk,), ()))

    def step(self) -> None:
        rows = [DecodeRow(row, None, self._position, table) for row, table in enumerate(self._tables)]
        self._runner.run(ForwardBatch(0, (), tuple(rows)))
        self._position += 1


class _Bare:
    """``model(token)`` over transformers' own cache, which is dense and without padding."""

    def __init__(self, model: Any, count: int) -> None:
        import torch
        from transformers import DynamicCache

        self._model = model
        self._tokens = torch.full((count, 1), 5)
        newer = "cache" in inspect.signature(model.forward).parameters  # transformers 5.24 renamed it
        self._cache = {"cache" if newer else "past_key_values": DynamicCache(config=model.config)}
        with torch.inference_mode():
            prompt = torch.arange(3, 3 + count)[:, None].expand(count, _CONTEXT_TOKENS)
            model(prompt, use_cache=True, logits_to_keep=1, **self._cache)

    def step(self) -> None:
        import torch

        with torch.inference_mode():
            self._model(self._tokens, use_cache=True, **self._cache)


def _in_turn(sides: list[_Ours | _Bare], steps: int) -> list[float]:
    """Median CPU seconds of a step of each side; two steps of each come before."""
    times: list[list[float]] = [[] for _ in sides]
    for number in range(steps + 2):
        for side, spent in zip(sides, times, strict=True):
            started_s = time.process_time()
            side.step()
            if number >= 2:
                spent.append(time.process_time() - started_s)
    return [median(spent) for spent in times]
