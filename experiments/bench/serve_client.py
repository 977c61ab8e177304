"""A client that takes as little of the machine as it can: it shares it with what it measures.

One connection a request; events are counted, not read.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from array import array
from collections.abc import Mapping
from typing import Any

HOST = "127.0.0.1"
_USAGE = b'"completion_tokens":'
_NUMBER = re.compile(rb"\d+")


class Stream(asyncio.Protocol):
    """One streamed answer. Times by ``time.monotonic()``."""

    def __init__(self) -> None:
        self.sent_s = 0.0
        self.times_s = array("d")
        """When something with tokens came."""
        self.counts = array("l")
        """Tokens that had come by then: as the usage in the stream says, else one an event."""
        self.event_bytes = 0
        """Of the last event that came in one piece."""
        self.done = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.BaseTransport | None = None
        self._status = b""
        self._last = b""

    @property
    def tokens(self) -> int:
        """That have come."""
        return self.counts[-1] if self.counts else 0

    @property
    def error(self) -> str | None:
        """Why the answer is no good, once it is over; None: it is."""
        if not self._status.startswith(b"HTTP/1.1 200"):
            return f"answered {self._status[:80]!r}"
        return None if self.done else f"ended after {self.tokens} tokens without [DONE]: {self._last[-200:]!r}"

    def leave(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        if not self._status:
            self._status = data.partition(b"\r\n")[0]
        seen = self._last[-1:] + data
        events = seen.count(b"\n\n")
        if b"data: [DONE]" in self._last[-16:] + data:
            self.done = True
            events -= 1
        self._last = data
        self._measure(data)
        total = self._said(seen) or self.tokens + events
        if total > self.tokens:
            self.times_s.append(now_s)
            self.counts.append(total)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.over.done():
            self.over.set_result(None)

    def _measure(self, data: bytes) -> None:
        start = data.find(b"data: {")
        end = data.find(b"\n\n", start)
        if 0 <= start < end:
            self.event_bytes = end + 2 - start

    def _said(self, data: bytes) -> int | None:
        at = data.rfind(_USAGE)
        number = _NUMBER.match(data, at + len(_USAGE)) if at >= 0 else None
        return int(number[0]) if number is not None else None


async def begin(port: int, path: str, body: Mapping[str, Any]) -> Stream:
    """Send a request; the time to connect counts as its own."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    stream = Stream()
    stream.sent_s = time.monotonic()
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: stream, HOST, port)
    transport.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return stream


async def finish(stream: Stream, within_s: float) -> Stream:
    """Wait for its end. Raises TimeoutError; the connection is closed in any case."""
    try:
        async with asyncio.timeout(within_s):
            await stream.over
    finally:
        stream.leave()
    return stream
