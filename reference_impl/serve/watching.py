"""The operator's line in a thread, for a program that otherwise waits: what the cluster manager last said."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from reference_impl.serve.channel import Network
from reference_impl.serve.messages import Status
from reference_impl.serve.operating import Operator
from reference_impl.serve.spec import LiveSpec

T = TypeVar("T")


class Watch:
    """Context manager. ``on_status`` is called in the thread with each status."""

    def __init__(self, spec: LiveSpec, on_status: Callable[[Status], None]) -> None:
        self._spec = spec
        self._on_status = on_status
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="operator", daemon=True)
        self._operator: Operator | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open()).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def away_s(self) -> float:
        """How long the cluster manager has been away."""
        return self._operator.away_s if self._operator is not None else 0.0

    def wait(self, enough: Callable[[Status], bool], timeout_s: float) -> Status:
        """The first status that is ``enough``. Raises TimeoutError."""
        return self._call(self._wait(enough, timeout_s)).result()

    def drain(self, seconds: float) -> Status:
        """Have everybody finish and hand in their rows. Raises TimeoutError."""
        assert self._operator is not None
        return self._call(self._operator.drain(seconds)).result()

    async def _open(self) -> None:
        self._operator = Operator(Network(self._spec.token), self._spec, self._on_status)
        self._operator.open()

    async def _wait(self, enough: Callable[[Status], bool], timeout_s: float) -> Status:
        assert self._operator is not None
        async with asyncio.timeout(timeout_s):
            return await self._operator.wait(enough)

    async def _close(self) -> None:
        assert self._operator is not None
        await self._operator.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
