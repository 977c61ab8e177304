"""Connections between the deployment's processes: length-prefixed msgpack frames over a unix socket or TCP.

Handles of Ray Serve cost milliseconds of CPU a call and cannot be multiplexed; a frame here costs tens of
microseconds. A connection opens with a :class:`Hello` (version and token), ends with a :class:`Bye` where its end is
meant, and never loses or reorders a message while it lasts. Nobody is told what became of messages sent shortly
before it broke: the layers above know what to do then.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import stat
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from reference_impl.serve.messages import MESSAGES, PROTOCOL, Bye, Hello
from reference_impl.serve.wire import WireError, pack, typed, unpack

MAX_FRAME_BYTES = 256 << 20
_HEAD_BYTES = 4
_HIGH_WATER_BYTES = 1 << 20
_TYPES = dict(enumerate(MESSAGES))
_CODES = {kind: code for code, kind in _TYPES.items()}

OnMessage = Callable[[Any], object]
OnClose = Callable[[str], None]


class ChannelError(ConnectionError):
    """A connection that cannot be made: names the address and the reason."""


class Address(NamedTuple):
    """``unix:PATH`` or ``tcp:HOST:PORT``."""

    scheme: str
    place: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read what :meth:`__str__` writes."""
        scheme, colon, place = text.partition(":")
        if not colon or scheme not in ("unix", "tcp"):
            raise ChannelError(f"{text!r} is no address (allowed: unix:PATH, tcp:HOST:PORT)")
        return cls(scheme, place)

    def __str__(self) -> str:
        return f"{self.scheme}:{self.place}"

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Of a TCP address."""
        host, _, port = self.place.rpartition(":")
        return host, int(port)


class Channel(asyncio.Protocol):
    """One end of a connection. Callbacks run in the event loop; none is called after :attr:`on_close`."""

    def __init__(self, max_unread_bytes: int = 64 << 20) -> None:
        self.on_message: OnMessage = _ignore
        self.on_close: OnClose = _ignore
        self.closed: str | None = None
        """Why it is closed; None while it is open."""
        self._max_unread_bytes = max_unread_bytes
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()

    # ----------------------------------------------------------------------------------------------------- for users

    def send(self, message: tuple[Any, ...]) -> bool:
        """Queue a message without waiting; False where the connection is closed. A peer that does not read for
        ``max_unread_bytes`` is cut off."""
        if self.closed is not None or self._transport is None:
            return False
        body = pack((_CODES[type(message)], message))
        self._write(len(body).to_bytes(_HEAD_BYTES, "big") + body)
        unread = self._transport.get_write_buffer_size()
        if unread > self._max_unread_bytes:
            self._end(f"the peer does not read: {unread >> 20} MiB wait", abort=True)
        return self.closed is None

    async def drain(self) -> None:
        """Wait until the peer has read most of what was sent, or the connection is closed."""
        await self._writable.wait()

    def close(self, reason: str) -> None:
        """Say goodbye; what was sent before still arrives. Does not call :attr:`on_close`."""
        self.on_close = _ignore
        if self.closed is None:
            self.send(Bye(reason))
            self._end(reason, abort=False)

    def cut(self) -> None:
        """Break the connection, without a word to anybody."""
        self.on_close = _ignore
        self._end("cut", abort=True)

    # --------------------------------------------------------------------------------------------------- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc else "the peer is gone", abort=True)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._take_frames()
        except WireError as error:
            self._end(f"the peer sent {error}", abort=True)

    # ----------------------------------------------------------------------------------------------------------- own

    def _write(self, frame: bytes) -> None:
        """Hand a frame to the transport. Tests break connections here."""
        assert self._transport is not None
        self._transport.write(frame)

    def _take_frames(self) -> None:
        start, size = 0, len(self._buffer)
        try:
            while self.closed is None and size - start >= _HEAD_BYTES:
                length = int.from_bytes(self._buffer[start : start + _HEAD_BYTES], "big")
                if length > MAX_FRAME_BYTES:
                    raise WireError(f"a frame of {length} bytes (allowed: {MAX_FRAME_BYTES})")
                end = start + _HEAD_BYTES + length
                if end > size:
                    return
                body = bytes(self._buffer[start + _HEAD_BYTES : end])
                start = end
                self._receive(_message(body))
        finally:
            del self._buffer[:start]

    def _receive(self, message: Any) -> None:
        if isinstance(message, Bye):
            self._end(message.reason, abort=False)
        else:
            self.on_message(message)

    def _end(self, reason: str, *, abort: bool) -> None:
        if self.closed is not None:
            return
        self.closed = reason
        self._writable.set()
        if self._transport is not None:
            (self._transport.abort if abort else self._transport.close)()
        tell, self.on_close, self.on_message = self.on_close, _ignore, _ignore
        tell(reason)


class Listener:
    """Accepts connections until it is closed."""

    def __init__(self, address: Address, server: asyncio.Server, channels: weakref.WeakSet[Channel]) -> None:
        self.address = address
        self._server = server
        self._channels = channels

    def close(self, reason: str) -> None:
        """Accept nobody any more and say goodbye to who is connected."""
        self._server.close()
        for channel in list(self._channels):
            channel.close(reason)
        if self.address.scheme == "unix":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address.place)


@dataclass
class Network:
    """How this process reaches the others. ``make_channel`` is where tests put faults."""

    token: str
    """Shared by the deployment's processes; who does not know it is refused."""
    make_channel: Callable[[], Channel] = Channel
    timeout_s: float = 5.0
    _channels: weakref.WeakSet[Channel] = field(default_factory=weakref.WeakSet)
    _listeners: weakref.WeakSet[Listener] = field(default_factory=weakref.WeakSet)

    async def listen(self, address: Address, on_connect: Callable[[Channel, Hello], None]) -> Listener:
        """Accept peers that know the token. TCP port 0 takes a free one; see the listener's address."""
        loop = asyncio.get_running_loop()
        channels: weakref.WeakSet[Channel] = weakref.WeakSet()

        def accept() -> Channel:
            channel = self._new_channel()
            channels.add(channel)
            channel.on_message = lambda hello: self._greet(channel, hello, on_connect)
            return channel

        try:
            if address.scheme == "unix":
                _remove_stale(Path(address.place))
                server: asyncio.Server = await loop.create_unix_server(accept, address.place)
            else:
                server = await loop.create_server(accept, *address.host_and_port)
                host, port = server.sockets[0].getsockname()[:2]
                address = Address("tcp", f"{host}:{port}")
        except OSError as error:
            raise ChannelError(f"cannot listen at {address}: {error}") from error
        listener = Listener(address, server, channels)
        self._listeners.add(listener)
        return listener

    async def connect(self, address: Address, hello: Hello, on_message: OnMessage, on_close: OnClose) -> Channel:
        """A connection to whoever listens at ``address``. Raises ChannelError."""
        channel = self._new_channel()
        channel.on_message, channel.on_close = on_message, on_close
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeout_s):
                if address.scheme == "unix":
                    await loop.create_unix_connection(lambda: channel, address.place)
                else:
                    await loop.create_connection(lambda: channel, *address.host_and_port)
        except (OSError, TimeoutError) as error:
            raise ChannelError(f"{address} does not answer: {error or 'timed out'}") from error
        channel.send(hello._replace(token=self.token))
        return channel

    def cut(self) -> None:
        """Break every connection and listen no more, without a word to anybody: as if the process were killed."""
        for channel in list(self._channels):
            channel.cut()
        for listener in list(self._listeners):
            listener.close("cut")

    def _new_channel(self) -> Channel:
        channel = self.make_channel()
        self._channels.add(channel)
        return channel

    def _greet(self, channel: Channel, hello: object, on_connect: Callable[[Channel, Hello], None]) -> None:
        refusal = _refusal(hello, self.token)
        if refusal is not None:
            channel.close(refusal)
            return
        channel.on_message = _ignore
        on_connect(channel, cast(Hello, hello))


def _refusal(hello: object, token: str) -> str | None:
    if not isinstance(hello, Hello):
        return "the first message must be a Hello"
    if not hmac.compare_digest(hello.token.encode(), token.encode()):
        return "wrong token: this is another deployment"
    if hello.protocol != PROTOCOL:
        return f"protocol {hello.protocol} is not spoken here (allowed: {PROTOCOL}); run one version of semiflow"
    return None


def _message(body: bytes) -> Any:
    plain = unpack(body)
    if not isinstance(plain, tuple) or len(plain) != 2 or plain[0] not in _TYPES:
        raise WireError("a frame that is no message")
    return typed(_TYPES[plain[0]], plain[1])


def _remove_stale(path: Path) -> None:
    """A socket file whose listener was killed is in the way of the next one."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()


def _ignore(_: Any) -> None:
    pass
