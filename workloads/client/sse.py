"""Server-sent events, as bytes come: whatever the chunks, the same events.

The format is WHATWG's: lines end in LF, CR or CRLF, a blank line ends an event, a line that begins with a colon is a
comment, the values of several ``data`` lines are joined by LF. Only the data is kept. Unlike a browser's, this parser
also yields an event that the end of the stream cuts off from its blank line: servers forget it behind ``[DONE]``.
"""

from __future__ import annotations

import re

MAX_EVENT_BYTES = 16 * 2**20
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventLengthError(ValueError):
    """An event that does not end within :data:`MAX_EVENT_BYTES`: what comes is no event stream."""


class SseParser:
    """Takes the bytes of one stream in any pieces, gives the data of its events."""

    def __init__(self) -> None:
        self._rest = bytearray()
        """The line that has begun."""
        self._data: list[bytes] = []
        """Of the event that has begun."""
        self._held_bytes = 0
        self._after_cr = False
        """A LF at the start of the next piece belongs to the CR before it."""
        self._at_start = True

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that ``piece`` completes. Raises EventLengthError."""
        events: list[bytes] = []
        for line in self._lines(piece):
            if not line:
                self._end_event(events)
            elif line.startswith(b"data"):
                self._data_line(line)
        if len(self._rest) + self._held_bytes > MAX_EVENT_BYTES:
            raise EventLengthError(f"an event of over {MAX_EVENT_BYTES} bytes")
        return events

    def finish(self) -> list[bytes]:
        """The data of the event that the end of the stream cut off, if there is any."""
        return self.feed(b"\n\n") if self._rest or self._data else []

    def _lines(self, piece: bytes) -> list[bytes]:
        if not piece:
            return []
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        *lines, rest = _LINE_END.split(piece)
        self._after_cr = piece.endswith(b"\r")
        if not lines:
            self._rest += rest
            return lines
        if self._rest:
            lines[0] = bytes(self._rest) + lines[0]
        self._rest = bytearray(rest)
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return lines

    def _data_line(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._held_bytes += len(value)

    def _end_event(self, events: list[bytes]) -> None:
        if self._data:
            events.append(b"\n".join(self._data))
            self._data = []
            self._held_bytes = 0
