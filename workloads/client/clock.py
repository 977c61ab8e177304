"""The client's clock."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since the replay's start, and a way to wait for a moment."""

    def now_s(self) -> float: ...
    async def sleep_until(self, moment_s: float) -> None:
        """Return once the moment is there; others run in between, also where it is past."""
        ...


class WallClock:
    """``time.monotonic()`` since :meth:`start`: on one host every process reads the same clock."""

    def __init__(self) -> None:
        self.start()

    def start(self, in_s: float = 0.0) -> None:
        """Let time 0 be ``in_s`` from now."""
        self.epoch_s = time.monotonic() + in_s

    def now_s(self) -> float:
        return time.monotonic() - self.epoch_s

    async def sleep_until(self, moment_s: float) -> None:
        await asyncio.sleep(max(0.0, moment_s - self.now_s()))
