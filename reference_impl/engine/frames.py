"""Messages between an instance and its workers: pickled values with a length before them, over a local socket.

Both ends are our own processes on one host; nothing that comes from outside of it is ever unpickled.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, Protocol

from reference_impl.engine.api import WorkerDiedError

_LENGTH = struct.Struct("<I")


class Stream(Protocol):
    """What is used of a socket."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...


def frame(message: object) -> bytes:
    """The bytes of one message."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def send_frame(sock: Stream, message: object) -> None:
    """Send one message. Raises WorkerDiedError where nobody is there any more."""
    try:
        sock.sendall(frame(message))
    except OSError as error:
        raise WorkerDiedError(f"the other end of a worker's socket is gone ({error})") from error


def receive_frame(sock: Stream) -> Any:
    """Wait for one message. Raises WorkerDiedError where none can come any more."""
    (length,) = _LENGTH.unpack(_receive(sock, _LENGTH.size))
    return pickle.loads(_receive(sock, length))


def _receive(sock: Stream, size: int) -> bytes:
    try:
        first = sock.recv(size)
        if len(first) == size:
            return first
        parts = bytearray(first)
        while first and len(parts) < size:
            first = sock.recv(size - len(parts))
            parts += first
    except OSError as error:
        raise WorkerDiedError(f"the other end of a worker's socket is gone ({error})") from error
    if len(parts) < size:
        raise WorkerDiedError("the other end of a worker's socket was closed")
    return bytes(parts)
