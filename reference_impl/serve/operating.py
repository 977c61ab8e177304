"""Whoever starts and stops a deployment: it watches who has come, and has everybody finish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from reference_impl.serve.channel import Channel, ChannelError, Network
from reference_impl.serve.messages import Drain, Hello, Status
from reference_impl.serve.spec import LiveSpec

_RETRY_S = 0.05


class Operator:
    """A line to the cluster manager that is taken up again when it breaks."""

    def __init__(self, network: Network, spec: LiveSpec, on_status: Callable[[Status], None] | None = None) -> None:
        self._network = network
        self._spec = spec
        self._on_status = on_status
        self._channel: Channel | None = None
        self._status: Status | None = None
        self._changed = asyncio.Event()
        self._drain_s: float | None = None
        self._away_since_s: float | None = time.monotonic()
        self._broken = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def away_s(self) -> float:
        """How long the line has been broken, or not been there yet."""
        return 0.0 if self._away_since_s is None else time.monotonic() - self._away_since_s

    def open(self) -> None:
        """Dial, and dial again whenever the line breaks."""
        self._keeping = asyncio.create_task(self._keep_connected())

    async def wait(self, enough: Callable[[Status], bool]) -> Status:
        """The first status that is ``enough``."""
        while self._status is None or not enough(self._status):
            self._changed.clear()
            await self._changed.wait()
        return self._status

    async def drain(self, seconds: float) -> Status:
        """Have everybody finish what runs and hand in their rows. Raises TimeoutError where that takes far too long."""
        self._drain_s = seconds
        if self._channel is not None:
            self._channel.send(Drain(seconds))
        async with asyncio.timeout(2 * seconds + self._spec.timing.silence_s):
            return await self.wait(lambda status: status.drained)

    async def close(self) -> None:
        """Hang up."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._channel is not None:
            self._channel.close("the operator is done")
            self._channel = None

    async def _keep_connected(self) -> None:
        hello = Hello("operator", -1)
        while True:
            self._broken.clear()
            try:
                channel = await self._network.connect(self._spec.manager, hello, self._hear, self._lost)
            except ChannelError:
                await asyncio.sleep(_RETRY_S)
                continue
            if self._drain_s is not None:
                channel.send(Drain(self._drain_s))
            self._channel, self._away_since_s = channel, None
            await self._broken.wait()

    def _hear(self, message: Any) -> None:
        if isinstance(message, Status):
            self._status = message
            self._changed.set()
            if self._on_status is not None:
                self._on_status(message)

    def _lost(self, _reason: str) -> None:
        self._channel = self._status = None
        self._away_since_s = time.monotonic()
        self._broken.set()
