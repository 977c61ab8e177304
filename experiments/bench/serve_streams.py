"""Many streams at once for a while: whether any fails, whether memory grows, and whether all get on alike."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.bench.figures import Figure
from experiments.bench.serve_client import Stream, begin, finish
from experiments.bench.serve_host import MODEL, deployment
from experiments.bench.serve_memory import Sample, growth_note, growth_per_minute, lasting, sample

_STREAMS = 200
_SPARE = 28
"""Sequences that an instance has room for beyond its half."""
_PROMPT_TOKENS = 32
_LOOK_S = 1.0
_END_S = 120.0
_GROWTH_LIMIT = 1.0
"""MB a minute, of all our processes together: what a measurement of two minutes can tell from none."""
_FAIR = 0.8


class _Plan(NamedTuple):
    warmup_s: float
    watched_s: float
    max_tokens: int


_FULL = _Plan(180.0, 120.0, 384)
"""The memory of any process of Ray's, ours included, grows in its first two and a half minutes, also when idle."""
_QUICK = _Plan(10.0, 20.0, 64)


class Slot:
    """A client that begins a new stream as soon as the last one has ended."""

    def __init__(self, number: int, port: int, max_tokens: int) -> None:
        drawn = random.Random(number)
        self._prompt = [drawn.randrange(10, 4000) for _ in range(_PROMPT_TOKENS)]
        """Always the same: policies that remember prompts are not to be taken for a leak."""
        self._port = port
        self._max_tokens = max_tokens
        self._first_tokens = 1 + max_tokens * number // _STREAMS
        """So that the streams do not end all at once."""
        self._stream: Stream | None = None
        self._ended_tokens = 0
        self.requests = 0
        self.errors: list[str] = []

    @property
    def tokens(self) -> int:
        """That it has got."""
        return self._ended_tokens + (self._stream.tokens if self._stream is not None else 0)

    async def run(self, until_s: float) -> None:
        """Begin streams until then, and wait for the last one."""
        while time.monotonic() < until_s:
            wanted = self._max_tokens if self.requests else self._first_tokens
            self.requests += 1
            try:
                self._stream = await begin(self._port, "/v1/completions", self._body(wanted))
                await finish(self._stream, _END_S)
            except (OSError, TimeoutError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                continue
            self._end(self._stream, wanted)

    def _end(self, stream: Stream, wanted: int) -> None:
        self._ended_tokens, self._stream = self.tokens, None
        if stream.error is not None:
            self.errors.append(stream.error)
        elif stream.tokens != wanted:
            self.errors.append(f"{stream.tokens} tokens of {wanted}")

    def _body(self, max_tokens: int) -> dict[str, Any]:
        options = {"include_usage": True, "continuous_usage_stats": True}
        body = {"model": MODEL, "prompt": self._prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0}
        return body | {"stream": True, "stream_options": options}


def many_streams(folder: Path, quick: bool, report: Callable[[str], None]) -> list[Figure]:
    """On two instances that hold all of them."""
    plan = _QUICK if quick else _FULL
    blocks = (_STREAMS // 2 + _SPARE) * -(-(_PROMPT_TOKENS + plan.max_tokens + 16) // 16)
    groups = [{"count": 2, "role": "colocated"}]
    fleet = {"kv_blocks": blocks, "max_sequences": _STREAMS, "prefix_caching": False, "groups": groups}
    with deployment(folder, fleet) as running:
        report(f"{_STREAMS} streams for {plan.warmup_s:g} s of warm-up, then {plan.watched_s:g} s")
        return asyncio.run(_load(running.pid, running.facts["port"], plan))


async def _load(pid: int, port: int, plan: _Plan) -> list[Figure]:
    warm_s = time.monotonic() + plan.warmup_s
    end_s = warm_s + plan.watched_s
    slots = [Slot(number, port, plan.max_tokens) for number in range(_STREAMS)]
    running = asyncio.gather(*(slot.run(end_s) for slot in slots))
    await asyncio.sleep(plan.warmup_s)
    first = [slot.tokens for slot in slots]
    samples: list[Sample] = []
    while time.monotonic() < end_s:
        samples.append(sample(pid))
        await asyncio.sleep(_LOOK_S)
    progress = np.array([slot.tokens - before for slot, before in zip(slots, first, strict=True)])
    watched_s = time.monotonic() - warm_s
    await running
    errors = [error for slot in slots for error in slot.errors]
    return figures_of(errors, sum(slot.requests for slot in slots), progress, watched_s, samples)


def figures_of(
    errors: list[str], requests: int, progress: np.ndarray[Any, Any], watched_s: float, samples: list[Sample]
) -> list[Figure]:
    """``progress``: tokens of each stream while it was watched."""
    name = f"serve: {_STREAMS} streams"
    rate = f"{requests} requests, {progress.sum() / watched_s:.0f} tokens/s watched for {watched_s:.0f} s"
    said = f"; the first: {errors[0]}" if errors else ""
    slowest = float(progress.min() / max(np.median(progress), 1.0))
    spread = f"tokens of a stream: {progress.min()} to {progress.max()}; Jain's index {jain(progress):.4f}"
    growth = growth_per_minute(samples, lasting(samples, of_ray=False)) / 1e6
    return [
        Figure(f"{name}: errors", len(errors), "errors", "lower", None, 1, floor=0, note=f"{rate}{said}"),
        Figure(
            f"{name}: growth of memory", growth, "MB/min", "lower", None, 1, _GROWTH_LIMIT, note=growth_note(samples)
        ),
        Figure(f"{name}: slowest over median", slowest, "x", "higher", None, 1, floor=_FAIR, note=spread),
    ]


def jain(shares: np.ndarray[Any, Any]) -> float:
    """Jain's index of fairness: 1 where all are alike, 1/n where one has everything."""
    squares = float((shares.astype(np.float64) ** 2).sum())
    return float(shares.sum()) ** 2 / (len(shares) * squares) if squares else 1.0
