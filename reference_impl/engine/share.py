"""A lane's part of one core: a token bucket over the thread's CPU time, looked at after every layer's attention.

Time is linear in the share for prefill and decode alike; a GPU's decode would saturate. It makes an instance on a CPU a
device of a size of its own, and several instances on one core independent devices.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reference_impl.engine.api import EngineError

if TYPE_CHECKING:
    from reference_impl.engine.yardstick import Yardstick

BURST_S = 0.02
"""CPU time that may be saved up within an iteration, while it waited for the core."""
SHORTEST_SLEEP_S = 5e-5
"""A smaller debt is paid with the next one: no system sleeps for less."""
_FORMAT = struct.Struct("<d")


class Share:
    """The share of one core that a lane may use, 0 < share <= 1, in a file that other processes can write to."""

    def __init__(self, path: Path, share: float | None = None) -> None:
        """Maps the file; with a ``share`` it is created, or set."""
        if share is not None and not path.exists():
            path.write_bytes(_FORMAT.pack(checked(share)))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _FORMAT.size)
        if share is not None:
            self.set(share)

    @property
    def value(self) -> float:
        found: float = _FORMAT.unpack_from(self._memory)[0]
        return found

    def set(self, share: float) -> None:
        """Takes effect in the owner's next layer."""
        _FORMAT.pack_into(self._memory, 0, checked(share))


def checked(share: float) -> float:
    """Raises EngineError for what is no share."""
    if not 0 < share <= 1:
        raise EngineError(f"a CPU share of {share}; allowed: above 0, at most 1 (one core)")
    return share


class Throttle:
    """Keeps the calling thread's CPU time within its share by sleeping; with a yardstick, a share of a standard core.

    Called at the start and at the end of an iteration too, what an iteration takes depends on its content alone:
    nothing is saved up between iterations, and none is paid for by the next.
    """

    def __init__(
        self,
        share: Share,
        yardstick: Yardstick | None = None,
        *,
        wall_s: Callable[[], float] = time.perf_counter,
        cpu_s: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._share = share
        self._yardstick = yardstick
        self._speed = yardstick.speed if yardstick is not None else 1.0
        self._clocks = wall_s, cpu_s
        self._sleep = sleep
        self._budget_s = 0.0
        self._wall_s, self._cpu_s = wall_s(), cpu_s()

    def begin(self) -> None:
        """An iteration starts: what was saved up until now is gone."""
        self._account(self._share.value)
        self._budget_s = min(self._budget_s, 0.0)
        if self._yardstick is not None:
            self._yardstick.measure()
            self._speed = self._yardstick.speed
            self._wall_s, self._cpu_s = self._clocks[0](), self._clocks[1]()  # measuring costs the lane nothing

    def __call__(self, layer: int = 0) -> None:
        """Sleep until what was computed since the last call is paid for."""
        del layer
        share = self._share.value
        self._account(share)
        while self._budget_s < -SHORTEST_SLEEP_S and share < 1:
            self._sleep(-self._budget_s / share)
            share = self._share.value
            self._account(share)

    def _account(self, share: float) -> None:
        wall_s, cpu_s = self._clocks[0](), self._clocks[1]()
        earned_s = share * (wall_s - self._wall_s)
        spent_s = self._speed * (cpu_s - self._cpu_s)
        self._budget_s = min(self._budget_s + earned_s - spent_s, BURST_S)
        self._wall_s, self._cpu_s = wall_s, cpu_s
