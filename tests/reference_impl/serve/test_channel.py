from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reference_impl.serve.channel import Address, Channel, ChannelError, Network
from reference_impl.serve.messages import Beat, Cancel, Hello, Release, Rows
from reference_impl.serve.wire import pack

TOKEN = "secret"
HELLO = Hello("front_door", 0)


class Inbox:
    """What one end of a connection was told."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.closed: list[str] = []
        self.channels: list[Channel] = []
        self.hellos: list[Hello] = []
        self._changed = asyncio.Event()

    def take(self, channel: Channel, hello: Hello) -> None:
        self.channels.append(channel)
        self.hellos.append(hello)
        channel.on_message = self.hear
        channel.on_close = self.lose
        self._changed.set()

    def hear(self, message: Any) -> None:
        self.messages.append(message)
        self._changed.set()

    def lose(self, reason: str) -> None:
        self.closed.append(reason)
        self._changed.set()

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not fact():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    return Address("unix", str(tmp_path / "s.sock")) if request.param == "unix" else Address("tcp", "127.0.0.1:0")


@asynccontextmanager
async def connection(address: Address, **network: Any) -> AsyncIterator[tuple[Channel, Inbox, Inbox]]:
    """(the client's channel, what the client hears, what the server hears)."""
    here, there = Inbox(), Inbox()
    known = Network(TOKEN, **network)
    listener = await known.listen(address, there.take)
    channel = await known.connect(listener.address, HELLO, here.hear, here.lose)
    try:
        yield channel, here, there
    finally:
        channel.close("the test is over")
        listener.close("the test is over")


def run(test: Any) -> None:
    asyncio.run(test)


def test_messages_arrive_in_order_both_ways(address: Address) -> None:
    async def check() -> None:
        async with connection(address) as (channel, here, there):
            for number in range(300):
                channel.send(Release(number))
            await there.until(lambda: len(there.messages) == 300)
            assert there.messages == [Release(number) for number in range(300)]
            assert there.hellos[0]._replace(token="") == HELLO
            there.channels[0].send(Cancel(1, "why"))
            await here.until(lambda: bool(here.messages))
            assert here.messages == [Cancel(1, "why")]

    run(check())


def test_a_goodbye_says_why_and_what_was_sent_before_arrives(address: Address) -> None:
    async def check() -> None:
        async with connection(address) as (channel, here, there):
            channel.send(Release(1))
            channel.close("enough")
            await there.until(lambda: bool(there.closed))
            assert (there.messages, there.closed) == ([Release(1)], ["enough"])
            assert here.closed == []
            assert not channel.send(Release(2))

    run(check())


def test_a_cut_connection_is_noticed_by_the_other_end(address: Address) -> None:
    async def check() -> None:
        async with connection(address) as (channel, here, there):
            await there.until(lambda: bool(there.channels))
            channel.cut()
            await there.until(lambda: bool(there.closed))
            assert len(there.closed) == 1
            assert here.closed == []

    run(check())


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (HELLO._replace(token="guess"), "wrong token"),
        (HELLO._replace(token=TOKEN, protocol=99), "protocol 99 is not spoken here"),
        (Release(1), "must be a Hello"),
    ],
    ids=["token", "protocol", "no hello"],
)
def test_who_does_not_belong_here_is_told_and_refused(address: Address, hello: Any, reason: str) -> None:
    async def check() -> None:
        async with connection(address) as (_, _, there):
            await there.until(lambda: len(there.channels) == 1)
            stranger = Inbox()
            known = Network(TOKEN)
            listener = await known.listen(Address("tcp", "127.0.0.1:0"), there.take)
            host, port = listener.address.host_and_port
            channel = Channel()
            channel.on_close = stranger.lose
            await asyncio.get_running_loop().create_connection(lambda: channel, host, port)
            channel.send(hello)
            await stranger.until(lambda: bool(stranger.closed))
            assert reason in stranger.closed[0]
            assert len(there.channels) == 1
            listener.close("over")

    run(check())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
        (b"\x00\x00\x00\x01\xc1", "not a packed value"),
        (b"\x00\x00\x00\x01\x05", "a frame that is no message"),
        ((lambda body: len(body).to_bytes(4, "big") + body)(pack((9999, ()))), "a frame that is no message"),
        ((lambda body: len(body).to_bytes(4, "big") + body)(pack((2, (1,)))), "fields"),
    ],
    ids=["huge", "garbage", "scalar", "unknown", "short"],
)
def test_what_is_no_message_ends_the_connection(content: bytes, reason: str) -> None:
    async def check() -> None:
        async with connection(Address("tcp", "127.0.0.1:0")) as (channel, _, there):
            await there.until(lambda: bool(there.channels))
            channel._write(content)
            await there.until(lambda: bool(there.closed))
            assert reason in there.closed[0]

    run(check())


def test_a_peer_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async def check() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        channel, inbox = Channel(max_unread_bytes=1 << 20), Inbox()
        channel.on_close = inbox.lose
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=ours)
        while channel.send(Rows(1, bytes(1 << 18))):
            pass
        assert "does not read" in inbox.closed[0]
        theirs.close()

    run(check())


def test_a_sender_that_can_wait_is_held_back(tmp_path: Path) -> None:
    async def check() -> None:
        async with connection(Address("unix", str(tmp_path / "s.sock"))) as (channel, _, there):
            await there.until(lambda: bool(there.channels))
            for _ in range(64):
                channel.send(Rows(1, bytes(1 << 18)))
                await channel.drain()
            await there.until(lambda: len(there.messages) == 64)

    run(check())


def test_the_socket_of_a_killed_predecessor_is_not_in_the_way(tmp_path: Path) -> None:
    async def check() -> None:
        path = tmp_path / "s.sock"
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(path))
        dead.close()
        async with connection(Address("unix", str(path))) as (channel, _, there):
            channel.send(Beat("ready"))
            await there.until(lambda: there.messages == [Beat("ready")])

    run(check())


def test_nobody_there_is_an_error_that_names_the_address(tmp_path: Path) -> None:
    async def check() -> None:
        with pytest.raises(ChannelError, match=r"unix:.*nobody.sock does not answer"):
            await Network(TOKEN).connect(Address("unix", str(tmp_path / "nobody.sock")), HELLO, print, print)
        with pytest.raises(ChannelError, match=r"cannot listen at unix:"):
            await Network(TOKEN).listen(Address("unix", str(tmp_path / ("long" * 40))), lambda *_: None)

    run(check())


def test_an_address_reads_what_it_writes() -> None:
    for text in ("unix:/a:b/c", "tcp:127.0.0.1:80", "tcp:::1:80"):
        assert str(Address.parse(text)) == text
    assert Address.parse("tcp:::1:80").host_and_port == ("::1", 80)
    with pytest.raises(ChannelError, match=r"'http:x' is no address \(allowed: unix:PATH, tcp:HOST:PORT\)"):
        Address.parse("http:x")
