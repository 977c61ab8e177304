"""A while in which streams run and the processes that serve them are watched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.bench.serve_child import Child
from experiments.bench.serve_client import Stream, begin
from experiments.bench.serve_processes import cpu_by_role, tree, without_workers

_FIRST_TOKENS = 10
_LOOK_S = 0.05
_PATIENCE_S = 60.0
_SETTLE_S = 1.0
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """What happened."""

    seconds: float
    streams: int
    tokens: int
    spent: Mapping[str, float]
    """CPU seconds by role."""
    event_bytes: int
    received_s: Sequence[float] = field(default=(), repr=False)
    """When something came, of all streams, by ``time.monotonic()``."""

    @property
    def cpu_token_s(self) -> float:
        """CPU seconds a token, of all but the workers."""
        return without_workers(self.spent) / self.tokens

    @property
    def period_s(self) -> float:
        """Seconds between two tokens of a stream."""
        return self.seconds * self.streams / self.tokens


async def watch_streams(served: Child, path: str, bodies: Sequence[Mapping[str, Any]], seconds: float) -> Window:
    """Begin the streams, watch once all of them run, and leave them. Raises RuntimeError where one ends early."""
    streams = [await begin(served.facts["port"], path, body) for body in bodies]
    try:
        await _until_all_run(streams)
        before, tokens, from_s = tree(served.pid), _tokens(streams), time.monotonic()
        await asyncio.sleep(seconds)
        after, until_s = tree(served.pid), time.monotonic()
        tokens = _tokens(streams) - tokens
        _check(streams)
    finally:
        for stream in streams:
            stream.leave()
    received_s = [moment for stream in streams for moment in stream.times_s if from_s <= moment <= until_s]
    await asyncio.sleep(_SETTLE_S)
    event_bytes = max(stream.event_bytes for stream in streams)
    return Window(until_s - from_s, len(streams), tokens, cpu_by_role(before, after), event_bytes, received_s)


def delays_s(received_s: Sequence[float], ticks_s: Floats) -> list[float]:
    """From the last tick before each moment to the moment; moments before the first tick are left out."""
    moments, ticks = np.asarray(received_s), np.sort(ticks_s)
    place = np.searchsorted(ticks, moments, side="right") - 1
    delays: list[float] = (moments - ticks[place])[place >= 0].tolist()
    return delays


def grid(moments_s: Sequence[float], period_s: float) -> Floats:
    """The multiples of ``period_s`` up to the last moment, from the one before the first."""
    if not moments_s:
        return np.empty(0)
    return np.arange(np.floor(min(moments_s) / period_s), np.floor(max(moments_s) / period_s) + 1) * period_s


async def _until_all_run(streams: Sequence[Stream]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while min(stream.tokens for stream in streams) < _FIRST_TOKENS:
        _check(streams)
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"not all of {len(streams)} streams had begun after {_PATIENCE_S:g} s")
        await asyncio.sleep(_LOOK_S)


def _check(streams: Sequence[Stream]) -> None:
    for number, stream in enumerate(streams):
        if stream.over.done():
            raise RuntimeError(f"stream {number} ended while it was watched: {stream.error}")


def _tokens(streams: Sequence[Stream]) -> int:
    return sum(stream.tokens for stream in streams)
