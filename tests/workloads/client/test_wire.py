"""Nothing on the way holds bytes back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from workloads.client.clock import WallClock
from workloads.client.wire import HttpWire, Mark


def test_small_packets_leave_at_once_and_answers_come_uncompressed(serving: Callable[..., Any]) -> None:
    async def waits(exchange: Any) -> None:
        await exchange.head()
        await exchange.piece(exchange.chunk("a"))
        await asyncio.Event().wait()

    server = serving(waits, trial_is_good=False)

    async def run() -> int:
        async with (
            HttpWire(f"{server.url}/v1", None, WallClock().now_s) as wire,
            wire.post("/completions", b"{}", {}, Mark()) as reply,
        ):
            connection: Any = reply._response.connection  # type: ignore[attr-defined]
            connected: socket.socket = connection.transport.get_extra_info("socket")
            return connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert asyncio.run(run()) != 0
    assert server.seen[0].headers["accept-encoding"] == "identity"
    assert "authorization" not in server.seen[0].headers


def test_a_request_is_sent_when_its_connection_begins_to_open(serving: Callable[..., Any]) -> None:
    moments = iter(range(1, 100))
    server = serving()

    async def run() -> list[float | None]:
        body = b'{"prompt": [1], "max_tokens": 1}'
        marks = [Mark(), Mark()]
        async with HttpWire(f"{server.url}/v1", None, lambda: float(next(moments))) as wire:
            for mark in marks:
                async with wire.post("/completions", body, {}, mark) as reply:
                    await reply.text()
        return [mark.sent_s for mark in marks]

    # the first opens a connection, the second finds it open: one stamp each, neither overwritten
    assert asyncio.run(run()) == [1.0, 2.0]
    assert server.connections == 1
