"""What all tests share: property tests that draw the same examples in each run, and a local server of the OpenAI API
for clients to be tested against. It speaks just enough HTTP, and misbehaves on request."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("gate")

MODELS = {"data": [{"id": "tiny", "max_model_len": 4096, "vocab_size": 512, "special_token_ids": [0, 1, 2]}]}


@dataclass
class Exchange:
    """One request as the server got it, and the means to answer."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    def json(self) -> Any:
        return json.loads(self.body)

    @staticmethod
    def event(content: object) -> bytes:
        data = content if isinstance(content, str) else json.dumps(content)
        return f"data: {data}\n\n".encode()

    def chunk(self, text: str, finish: str | None = None, **more: Any) -> bytes:
        said = {"delta": {"content": text}} if self.path.endswith("/chat/completions") else {"text": text}
        return self.event({"choices": [{"index": 0, "finish_reason": finish, **said}], **more})

    async def head(self, status: int = 200, content_type: str = "text/event-stream") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.writer.write(head.encode())
        await self.writer.drain()

    async def piece(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def stream(self, *pieces: bytes) -> None:
        """A whole answer in these pieces."""
        await self.head()
        for data in pieces:
            await self.piece(data)
        await self.end()

    async def whole(self, status: int, content: object) -> None:
        """An answer that is no stream."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        await self.writer.drain()

    async def tokens(self) -> None:
        """Answer as one should: a chunk for each token, usage with each."""
        asked = self.json()
        prompt, output = len(asked.get("prompt", ())), asked["max_tokens"]
        await self.head()
        for place in range(1, output + 1):
            usage = {"prompt_tokens": prompt, "completion_tokens": place}
            await self.piece(self.chunk("x", "length" if place == output else None, usage=usage))
        await self.piece(self.event("[DONE]"))
        await self.end()


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class LocalServer:
    """Answers GETs with what /v1/models lists and POSTs as ``script`` does; the first POST, a trial, always well."""

    script: Script
    models: Any = field(default_factory=lambda: MODELS)
    models_status: int = 200
    trial_is_good: bool = True
    seen: list[Exchange] = field(default_factory=list)
    connections: int = 0
    served: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def posts(self) -> list[Exchange]:
        """Without the trial."""
        return [exchange for exchange in self.seen if exchange.method == "POST"][1:]

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.served[asyncio.get_running_loop().create_task(self._serve(reader, writer))] = writer

    async def leave(self) -> None:
        """Drop every connection, also one whose task has not begun and so would never close it."""
        for task in self.served:
            task.cancel()
        await asyncio.gather(*self.served, return_exceptions=True)
        for writer in self.served.values():
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (exchange := await self._request(reader, writer)) is not None:
                await self._answer(exchange)
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _answer(self, exchange: Exchange) -> None:
        is_trial = exchange.method == "POST" and not any(earlier.method == "POST" for earlier in self.seen)
        self.seen.append(exchange)
        if exchange.method == "GET":
            await exchange.whole(self.models_status, self.models)
        elif is_trial and self.trial_is_good:
            await exchange.tokens()
        else:
            await self.script(exchange)

    @staticmethod
    async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode().rstrip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Exchange(method, path, headers, body, writer)


@pytest.fixture
def serving() -> Iterator[Callable[..., LocalServer]]:
    """Start local servers; each runs in a thread's event loop until the test ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listeners: list[asyncio.Server] = []
    servers: list[LocalServer] = []

    def start(script: Script = Exchange.tokens, **settings: Any) -> LocalServer:
        server = LocalServer(script, **settings)
        listening = asyncio.start_server(server.connected, "127.0.0.1", 0)
        listeners.append(asyncio.run_coroutine_threadsafe(listening, loop).result(10))
        servers.append(server)
        server.port = listeners[-1].sockets[0].getsockname()[1]
        return server

    async def close() -> None:
        while accepted := asyncio.all_tasks().difference(
            *(server.served for server in servers), [asyncio.current_task()]
        ):
            await asyncio.gather(*accepted)  # before its listener is closed, else nobody closes the connection
        for listener in listeners:
            listener.close()
        for server in servers:
            await server.leave()
        await asyncio.sleep(0)  # the loop tells the aborted connections

    yield start
    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: of two workers (pytest -n 2) one is busy with it while the other does what follows, so
    that its deployment is not beside that of another file."""
    items.sort(key=lambda item: item.path.name != "test_ray.py")
