"""Writes the log's rows for the cluster manager, and confirms them to who sent them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from reference_impl.serve.channel import Channel
from reference_impl.serve.messages import Rows, RowsKept
from reference_impl.serve.spool import Batch, Spool

_LOG = logging.getLogger(__name__)
_PERIOD_S = 0.05
_MAX_WAITING_BYTES = 512 << 20
"""Rows that wait for a disk that hangs, more than members send again at once; those that come beyond it are lost."""


class RowKeeper:
    """Batches are written in a thread, a period's worth at a time: a slow disk stalls nobody.

    On an error the log ends with one clear line, and what still comes in is confirmed and dropped. Where the disk does
    not keep up, the log has a gap and goes on.
    """

    def __init__(self, path: Path | None) -> None:
        self._spool = Spool(path) if path is not None else None
        self._batches: list[Batch] = []
        self._waiting_bytes = 0
        self._overrun = ""
        self._senders: dict[str, Channel] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._told = ""

    @property
    def error(self) -> str:
        """Why the log ended early, or has a gap; empty: neither."""
        return (self._spool.error or self._spool.gap or self._overrun) if self._spool is not None else ""

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write_for_ever())

    def add(self, sender: str, rows: Rows, channel: Channel) -> None:
        """A batch of ``sender``, to be confirmed on ``channel``."""
        if self._waiting_bytes + len(rows.content) > _MAX_WAITING_BYTES:
            self._overrun = "the disk did not keep up, rows were lost"
            self._tell()
            return
        self._waiting_bytes += len(rows.content)
        self._batches.append(Batch(sender, rows.number, rows.content))
        self._senders[sender] = channel

    async def stop(self) -> None:
        """Write the rest."""
        self._stopping.set()
        if self._task is not None:
            await self._task  # not cancelled: a write under way in its thread would go on
        if self._spool is not None:
            self._spool.close()

    async def _write_for_ever(self) -> None:
        last = False
        while not last:
            last = self._stopping.is_set()
            batches = self._take()
            if batches:
                await asyncio.to_thread(self._write, batches)
                self._confirm(batches)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _PERIOD_S)

    def _take(self) -> list[Batch]:
        batches, self._batches, self._waiting_bytes = self._batches, [], 0
        return batches

    def _write(self, batches: list[Batch]) -> None:
        if self._spool is not None:
            self._spool.append(batches)

    def _confirm(self, batches: list[Batch]) -> None:
        for sender, number in {batch.sender: batch.number for batch in batches}.items():
            self._senders[sender].send(RowsKept(number))
        self._tell()

    def _tell(self) -> None:
        """One line for each new error."""
        if self._spool is not None and self.error not in ("", self._told):
            self._told = self.error
            what = "ends here" if self._spool.error else "has a gap"
            _LOG.error("the event log %s: %s: %s; serving goes on without it", what, self._spool.path, self.error)
