"""A process's line to the cluster manager: it joins, says that it lives, hears who else does, and hands in its rows.

The line may break: the cluster manager may be restarted at any time. Serving goes on without it; the line is taken up
again, with the same seat, and rows that were not confirmed are sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reference_impl.serve.channel import Address, Channel, ChannelError, Network
from reference_impl.serve.messages import (
    Beat,
    Drain,
    Drained,
    Fence,
    Hello,
    Join,
    Members,
    Rows,
    RowsKept,
    Welcome,
)
from reference_impl.serve.spool import LogRows, pack_rows

_LOG = logging.getLogger(__name__)
_RETRY_S = 0.05
_MAX_KEPT_BYTES = 128 << 20
"""Rows kept for a cluster manager that is away; the oldest are given up beyond it."""


class FencedError(ConnectionError):
    """The cluster manager has given this process up: it has to stop."""


@dataclass(frozen=True)
class Duty:
    """What a process does with what the cluster manager says. Called in the event loop."""

    beat: Callable[[], Beat]
    on_members: Callable[[Members], None]
    on_drain: Callable[[float], None]
    """Finish what runs within so many seconds, then call :meth:`MemberLine.drained`."""
    on_fence: Callable[[str], None]


class MemberLine:
    """One process's line to the cluster manager."""

    def __init__(
        self, network: Network, manager: Address, join: Join, duty: Duty, *, beat_s: float, logs: bool
    ) -> None:
        self._network = network
        self._manager = manager
        self._join = join
        self._duty = duty
        self._beat_s = beat_s
        self._logs = logs
        self._channel: Channel | None = None
        self._seated: Channel | None = None
        """The same once the cluster manager has welcomed it: rows go out in order, those kept from before first."""
        self._welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._is_fenced = False
        self._broken = asyncio.Event()
        self._kept: deque[Rows] = deque()
        self._kept_bytes = 0
        self._number = 0
        self._all_kept = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def seat(self) -> int:
        """This process's place among its kind."""
        return self._join.seat

    async def start(self) -> Welcome:
        """Join; returns once there is a seat. Raises FencedError."""
        self._tasks.append(asyncio.create_task(self._keep_connected()))
        welcome = await self._welcome
        self._tasks.append(asyncio.create_task(self._keep_beating()))
        return welcome

    def beat(self) -> None:
        """Say now that something changed."""
        if self._seated is not None:
            self._seated.send(self._duty.beat())

    def log(self, rows: LogRows) -> None:
        """Hand rows in; they are kept until they are confirmed."""
        if not self._logs or not rows:
            return
        self._number += 1
        batch = Rows(self._number, pack_rows(rows))
        self._kept.append(batch)
        self._kept_bytes += len(batch.content)
        if self._kept_bytes > _MAX_KEPT_BYTES:
            self._drop_oldest()
        if self._seated is not None:
            self._seated.send(batch)

    async def confirmed(self, timeout_s: float) -> bool:
        """Wait until every row handed in is confirmed; False where that takes too long."""
        self._all_kept.clear()
        if not self._kept:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_kept.wait()
        except TimeoutError:
            return False
        return True

    def drained(self) -> None:
        """All that was asked for by ``on_drain`` is done."""
        if self._seated is not None:
            self._seated.send(Drained())

    async def stop(self, reason: str) -> None:
        """Leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._channel is not None:
            self._channel.close(reason)

    # ------------------------------------------------------------------------------------------------------------ own

    async def _keep_connected(self) -> None:
        while not self._is_fenced:
            self._broken.clear()
            hello = Hello(self._join.kind, self._join.seat)
            try:
                channel = await self._network.connect(self._manager, hello, self._receive, self._lost)
            except ChannelError:
                await asyncio.sleep(_RETRY_S)
                continue
            self._channel = channel
            channel.send(self._join)
            await self._broken.wait()
            await asyncio.sleep(_RETRY_S)

    async def _keep_beating(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(self._beat_s)

    def _lost(self, reason: str) -> None:
        _LOG.warning("lost the cluster manager: %s", reason)
        self._channel = self._seated = None
        self._broken.set()

    def _receive(self, message: Any) -> None:
        match message:
            case Welcome():
                self._take_seat(message)
            case Members():
                self._duty.on_members(message)
            case RowsKept():
                self._confirm(message.number)
            case Drain():
                self._duty.on_drain(message.seconds)
            case Fence():
                self._fenced(message.reason)

    def _take_seat(self, welcome: Welcome) -> None:
        self._join = self._join._replace(seat=welcome.seat, generation=welcome.generation)
        self._seated = self._channel
        assert self._seated is not None
        for batch in self._kept:
            self._seated.send(batch)
        if not self._welcome.done():
            self._welcome.set_result(welcome)
        self.beat()

    def _fenced(self, reason: str) -> None:
        self._is_fenced = True
        if not self._welcome.done():
            self._welcome.set_exception(FencedError(reason))
        self._duty.on_fence(reason)

    def _confirm(self, number: int) -> None:
        while self._kept and self._kept[0].number <= number:
            self._kept_bytes -= len(self._kept.popleft().content)
        if not self._kept:
            self._all_kept.set()

    def _drop_oldest(self) -> None:
        while self._kept_bytes > _MAX_KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft().content)
        _LOG.error("the cluster manager does not take the log's rows: the oldest are lost; the event log has a gap")
