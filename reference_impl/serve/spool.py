"""The run's rows as they arrive: an append-only file of batches, safe against the death of whoever writes it.

Parquet has its directory at the end, so a writer that is killed leaves nothing readable; a spool is read up to its
last whole batch. Batches come numbered by their senders, so one that is sent twice is kept once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from reference_impl.serve.wire import WireError, pack, unpack

_HEAD_BYTES = 4
LogRows = dict[str, list[Any]]
"""Rows by the name of their list in ``reference_impl.events.ROW_FIELDS``; ``request`` holds one mapping a row."""


class Batch(NamedTuple):
    """What one process logged at once."""

    sender: str
    number: int
    content: bytes

    def rows(self) -> LogRows:
        """The rows in it. Raises WireError."""
        rows: LogRows = unpack(self.content)
        return rows


def pack_rows(rows: LogRows) -> bytes:
    """The content of a batch."""
    return pack(rows)


class Spool:
    """Appends batches. A disk that is full, or a file that cannot be written, ends the log, never the run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: str | None = None
        """Why the log ended early; None: it did not."""
        self.gap: str | None = None
        """Whose batches never came, while later ones did; None: nobody's."""
        self.numbers: dict[str, int] = {}
        """The last batch of each sender."""
        self._file: int | None = None
        try:
            self._open()
        except OSError as error:
            self._stop(error)

    def append(self, batches: list[Batch]) -> None:
        """Write batches; those that are there already are passed over. After an error they are dropped."""
        fresh = []
        for batch in batches:
            last = self.numbers.get(batch.sender, 0)
            if batch.number > last:
                if batch.number > last + 1:
                    self.gap = f"rows of {batch.sender} were lost"
                self.numbers[batch.sender] = batch.number
                fresh.append(_frame(batch))
        if self._file is None or not fresh:
            return
        try:
            _write_all(self._file, b"".join(fresh))
        except OSError as error:
            self._stop(error)

    def close(self) -> None:
        """Nothing more will come."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        """Go on after the last whole batch of an earlier writer."""
        end = 0
        if self.path.exists():
            for end, batch in _scan(self.path):  # noqa: B007 - the last end counts
                self.numbers[batch.sender] = batch.number
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)

    def _stop(self, error: OSError) -> None:
        self.error = error.strerror or str(error)
        self.close()


def read_spool(path: Path) -> Iterator[Batch]:
    """The whole batches of a spool, in the order in which they came."""
    for _, batch in _scan(path):
        yield batch


def _frame(batch: Batch) -> bytes:
    body = pack(batch)
    return len(body).to_bytes(_HEAD_BYTES, "big") + body


def _scan(path: Path) -> Iterator[tuple[int, Batch]]:
    """Each batch and where it ends."""
    with path.open("rb") as file:
        end = 0
        while len(head := file.read(_HEAD_BYTES)) == _HEAD_BYTES:
            length = int.from_bytes(head, "big")
            body = file.read(length)
            if len(body) < length:
                return
            try:
                batch = Batch(*unpack(body))
            except (WireError, TypeError):
                return
            end += _HEAD_BYTES + length
            yield end, batch


def _write_all(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
