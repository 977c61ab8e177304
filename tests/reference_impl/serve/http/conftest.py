"""An app over a scripted gateway, and two ways to call it: httpx, and bare ASGI for what happens in mid-answer."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from reference_impl.serve.http.app import create_app
from reference_impl.serve.http.settings import HttpSettings
from reference_impl.serve.http.testing import FakeGateway
from reference_impl.serve.http.tokenizer import Tokenizer, load_tokenizer

VOCAB = 4096


class MakeApp(Protocol):
    """Settings that differ from the defaults."""

    def __call__(self, **changes: Any) -> FastAPI: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The bundled one."""
    found = load_tokenizer(Path("no such folder"), VOCAB)
    assert found is not None
    return found


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def make_app(gateway: FakeGateway, tokenizer: Tokenizer) -> MakeApp:
    def make(*, text: bool = True, **changes: Any) -> FastAPI:
        settings = HttpSettings(model="tiny", context_tokens=2048, vocab_size=VOCAB)
        return create_app(replace(settings, **changes), tokenizer if text else None, gateway)

    return make


@pytest.fixture
def client_of() -> Callable[[FastAPI], httpx.AsyncClient]:
    return lambda app: httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front.door")


@pytest.fixture
async def client(
    make_app: MakeApp, client_of: Callable[[FastAPI], httpx.AsyncClient]
) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(make_app()) as client:
        yield client


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[FastAPI], AbstractAsyncContextManager[str]]:
    """A real server on a free port, in this event loop; gives its URL."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=5)
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            async with asyncio.timeout(10):
                while not server.started:
                    await asyncio.sleep(0)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True
            await task

    return running


class BareCall:
    """One POST as an ASGI server makes it. Every message stays readable; the client may leave, or stop reading."""

    def __init__(
        self,
        app: FastAPI,
        path: str,
        body: dict[str, Any],
        headers: dict[str, str] | None = None,
        *,
        withheld: bool = False,
    ) -> None:
        """``withheld``: the body never comes."""
        self.sent: list[MutableMapping[str, Any]] = []
        self.reads = asyncio.Event()
        """Cleared: writes block, as they do when the client's buffer is full."""
        self.reads.set()
        self._left = asyncio.Event()
        self._body: bytes | None = None if withheld else json.dumps(body).encode()
        given = {"content-type": "application/json"} | (headers or {})
        raw = [(name.encode(), value.encode()) for name, value in given.items()]
        scope = {"type": "http", "method": "POST", "path": path, "headers": raw, "query_string": b""}
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    def leave(self) -> None:
        """The connection is gone."""
        self._left.set()

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def writes(self) -> int:
        return sum(bool(message.get("body")) for message in self.sent)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Turns of the event loop until something holds; fails after five seconds."""
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)

    async def _receive(self) -> MutableMapping[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self.reads.wait()
        self.sent.append(message)


@pytest.fixture
def call_bare() -> type[BareCall]:
    return BareCall
