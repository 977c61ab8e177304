"""How fast this core is now, measured by a fixed piece of work.

A virtual machine's core loses a third of its speed while its neighbours are busy, for minutes or for seconds. A lane
whose CPU time is counted in seconds of a standard core is a device that keeps its speed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

import torch

STANDARD_S = 4e-4
"""What the work takes on the standard core."""
_KEPT = 9
"""Measurements whose median counts: a few tenths of a second of a busy lane."""
_STEPS = 1500


class Yardstick:
    """Python, a product that streams weights and one that computes: in such parts, about, as a forward has them."""

    def __init__(self, work: Callable[[], object] | None = None, cpu_s: Callable[[], float] = time.thread_time) -> None:
        self._work = work or _standard_work()
        self._cpu_s = cpu_s
        self._taken_s: deque[float] = deque(maxlen=_KEPT)
        for _ in range(_KEPT + 1):  # the first one is cold, and falls out
            self.measure()

    @property
    def speed(self) -> float:
        """Standard seconds that a second of this core is worth."""
        return STANDARD_S / median(self._taken_s)

    def measure(self) -> None:
        """Take the work's time once more."""
        started_s = self._cpu_s()
        self._work()
        self._taken_s.append(self._cpu_s() - started_s)


def _standard_work() -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    row, wide = torch.randn(1, 256, generator=generator), torch.randn(256, 2048, generator=generator)
    block, square = torch.randn(64, 256, generator=generator), torch.randn(256, 256, generator=generator)

    def work() -> object:
        return row @ wide, block @ square, sum(step * step for step in range(_STEPS))

    return work
