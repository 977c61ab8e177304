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


class RowKeeper:
    """Batches are written in a thread, a period's worth at a time: a slow disk stalls nobody.

    On an error the log ends with one clear line, and what still comes in is confirmed and dropped.
    """

    def __init__(self, path: Path | None) -> None:
        self._spool = Spool(path) if path is not None else None
        self._batches: list[Batch] = []
        self._senders: dict[str, Channel] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._told = False

    @property
    def error(self) -> str:
        """Why the log ended early; empty: it did not."""
        return (self._spool.error or "") if self._spool is not None else ""

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write_for_ever())

    def add(self, sender: str, rows: Rows, channel: Channel) -> None:
        """A batch of ``sender``, to be confirmed on ``channel``."""
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
        batches, self._batches = self._batches, []
        return batches

    def _write(self, batches: list[Batch]) -> None:
        if self._spool is not None:
            self._spool.append(batches)

    def _confirm(self, batches: list[Batch]) -> None:
        for sender, number in {batch.sender: batch.number for batch in batches}.items():
            self._senders[sender].send(RowsKept(number))
        if self._spool is not None and self.error and not self._told:
            self._told = True
            _LOG.error("the event log ends here: %s: %s; serving goes on without it", self._spool.path, self.error)
