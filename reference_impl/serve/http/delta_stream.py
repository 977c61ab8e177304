"""A GenerateStream to push into: what a gateway hands out and feeds as tokens arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

from reference_impl.engine.api import FinishReason, SampledToken
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import Delta, TaskView


class DeltaStream:
    """Single producer, single consumer, one event loop. A consumer that lags gets what gathered as one delta."""

    __slots__ = (
        "_closed",
        "_error",
        "_finish",
        "_on_close",
        "_pending",
        "_waiter",
        "cached_tokens",
        "request_id",
        "tasks",
    )

    def __init__(self, request_id: int, on_close: Callable[[str | None], None]) -> None:
        """``on_close(reason)`` is called once if the consumer ends it early: None for :meth:`end`, else the reason of
        :meth:`cancel`."""
        self.request_id = request_id
        self.cached_tokens: int | None = None
        self.tasks: Sequence[TaskView] = ()
        self._on_close = on_close
        self._pending: tuple[SampledToken, ...] = ()
        self._finish: FinishReason | None = None
        self._error: ServingError | None = None
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more may be put."""
        return self._closed or self._finish is not None or self._error is not None

    def put(self, tokens: tuple[SampledToken, ...], finish: FinishReason | None = None) -> None:
        """The next tokens. Of no effect once it is over."""
        if not self.over:
            self._pending += tokens
            self._finish = finish
            self._wake()

    def fail(self, error: ServingError) -> None:
        """The deployment gives up: the consumer gets what is pending, then the error."""
        if not self.over:
            self._error = error
            self._wake()

    def end(self) -> None:
        """See GenerateStream."""
        self._close(None)

    def cancel(self, reason: str) -> None:
        """See GenerateStream."""
        self._close(reason)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        if not self._pending and not self.over:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._closed:
            raise StopAsyncIteration
        if self._pending or self._finish is not None:
            delta = Delta(self._pending, self._finish)
            self._pending = ()
            self._closed = self._finish is not None
            return delta
        self._closed = True
        assert self._error is not None, "woken with nothing to give"
        raise self._error

    def _close(self, reason: str | None) -> None:
        if self._closed:
            return
        told = not self.over
        self._closed = True
        self._pending = ()
        self._wake()
        if told:
            self._on_close(reason)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
