"""HTTP by aiohttp: connections enough that no request waits for another's, nothing buffered on the way."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Protocol, Self

import aiohttp

_KEPT_ALIVE_S = 2.0
"""Below the 5 s after which uvicorn closes an idle connection: one that is closed while a request is sent on it costs
that request."""
_LAST = {"Connection": "close"}
"""Some servers drop a connection behind an error without saying so; the next request on it would be lost."""
_TEXT_BYTES = 4 * 2**20
"""Longer texts are cut: a list of models, the message of an error."""


class UnreachableError(ConnectionError):
    """No connection to the server came about."""


class DroppedError(ConnectionError):
    """The connection broke before the answer was over."""


@dataclass
class Mark:
    """When a request began to be sent."""

    sent_s: float | None = None


class Reply(Protocol):
    """The answer to one request."""

    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> str: ...
    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises DroppedError."""
        ...

    async def text(self) -> str:
        """The body's beginning, whatever bytes it holds. Raises DroppedError."""
        ...


class Wire(Protocol):
    """What carries requests to the server."""

    def get(self, path: str) -> AbstractAsyncContextManager[Reply]: ...
    def post(
        self, path: str, body: bytes, headers: Mapping[str, str], mark: Mark
    ) -> AbstractAsyncContextManager[Reply]:
        """Send; the answer's head has come on entering. Raises UnreachableError, DroppedError."""
        ...


class HttpWire:
    """The wire to one server's ``/v1``, while the context lasts."""

    def __init__(self, base_url: str, api_key: str | None, now_s: Callable[[], float]) -> None:
        self._base_url = base_url
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._now_s = now_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=None, keepalive_timeout=_KEPT_ALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(),
            trace_configs=[self._tracing()],
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def get(self, path: str) -> AsyncIterator[Reply]:
        """See :class:`Wire`."""
        async with self._answered("GET", path, None, _LAST, Mark()) as reply:
            yield reply

    @contextlib.asynccontextmanager
    async def post(self, path: str, body: bytes, headers: Mapping[str, str], mark: Mark) -> AsyncIterator[Reply]:
        """See :class:`Wire`."""
        async with self._answered("POST", path, body, headers, mark) as reply:
            yield reply

    @contextlib.asynccontextmanager
    async def _answered(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], mark: Mark
    ) -> AsyncIterator[Reply]:
        if self._session is None:
            raise RuntimeError("a wire carries requests within its context only")
        try:
            async with self._session.request(
                method,
                f"{self._base_url}{path}",
                data=body,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=mark,
            ) as response:
                yield _HttpReply(response)
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise UnreachableError(_reason(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise DroppedError(_reason(error)) from error

    def _tracing(self) -> aiohttp.TraceConfig:
        """Stamps a request's mark at its first act on the network."""

        async def stamp(_session: object, context: SimpleNamespace, _parameters: object) -> None:
            mark: Mark = context.trace_request_ctx
            if mark.sent_s is None:
                mark.sent_s = self._now_s()

        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_start.append(stamp)
        tracing.on_request_headers_sent.append(stamp)
        return tracing


class _HttpReply:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.content_type

    def pieces(self) -> AsyncIterator[bytes]:
        return self._response.content.iter_any().__aiter__()

    async def text(self) -> str:
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) >= _TEXT_BYTES:
                break
        return body.decode(errors="backslashreplace")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
