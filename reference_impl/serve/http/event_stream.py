"""Server-sent events: one write for each delta of a stream, and exactly one end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reference_impl.serve.http.answers import DONE, Answer, error_event
from reference_impl.serve.http.errors import ServingError, internal_error
from reference_impl.serve.http.exchange import Exchange, outcome_of

REQUEST_ID_HEADER = "x-request-id"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
STALLED_S = 5.0
"""How long after its end a stream waits for a client that does not read."""
logger = logging.getLogger("semiflow.http")


async def events(exchange: Exchange, answer: Answer) -> AsyncIterator[str]:
    """The stream's text, one string a write. Raises ServingError."""
    call = exchange.call
    left = call.sequences
    async for choice, piece in exchange.pieces():
        text = answer.event(choice, piece, exchange.usage() if call.continuous_usage else None)
        left -= piece.finish is not None
        if not left:
            text += (answer.usage_event(exchange.usage()) if call.include_usage else "") + DONE
        yield text


@contextlib.asynccontextmanager
async def watched(exchange: Exchange, receive: Receive) -> AsyncIterator[None]:
    """Within it, a client that leaves cuts the exchange short."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        exchange.cut(ServingError(499, "the client left", code="client_left"))

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


class EventStream(Response):
    """An answer that is sent as it grows. Its first event was awaited before, so that an early failure had its own
    HTTP status."""

    media_type = "text/event-stream"

    def __init__(self, exchange: Exchange, first: str, rest: AsyncIterator[str]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS | {REQUEST_ID_HEADER: str(exchange.request_id)})
        self._exchange = exchange
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        exchange = self._exchange
        try:
            async with asyncio.timeout(None) as limit, watched(exchange, receive):
                exchange.on_cut = lambda: limit.reschedule(asyncio.get_running_loop().time() + STALLED_S)
                if exchange.stop_reason is not None:
                    exchange.on_cut()
                await self._send(send)
        except (OSError, ClientDisconnect):  # the client is gone, or does not read
            reason = exchange.stop_reason
            exchange.close("client_left" if reason is None else outcome_of(reason), 499)
        finally:
            exchange.close("cancelled", 499)  # of no effect where it has ended

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        text: str | None = self._first
        last = b""
        try:
            while text is not None:
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                text = await anext(self._rest, None)
            self._exchange.close("ok", 200)
        except ServingError as error:
            last = self._failed(error)
        except (OSError, ClientDisconnect):
            raise
        except Exception:
            logger.exception("a stream failed")
            last = self._failed(internal_error())
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def _failed(self, error: ServingError) -> bytes:
        self._exchange.fail(error)
        return error_event(error).encode()
