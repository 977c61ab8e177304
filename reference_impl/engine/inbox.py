"""Hand-overs to an instance: promised, given blocks when there is room, pulled, joined to its decodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from reference_impl.engine.api import EngineError, EngineRequest
from reference_impl.engine.arrivals import Arrivals
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.pulling import Puller
from reference_impl.engine.step import Parcel


@dataclass(eq=False)
class _Entry:
    """One hand-over on its way."""

    request: EngineRequest
    parcel: Parcel
    final: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the request has come with its first token and the final parcel."""
    task: asyncio.Task[None] | None = None


class Inbox:
    """The hand-overs to one instance, first come first served with blocks; each is pulled by a task of its own."""

    def __init__(
        self,
        arrivals: Arrivals,
        pool: KvFile,
        puller: Puller,
        timeout_s: float,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._arrivals = arrivals
        self._pool = pool
        self._puller = puller
        self._timeout_s = timeout_s
        self._clock = clock
        self._changed = changed
        self._entries: dict[int, _Entry] = {}

    def adopt(self, request: EngineRequest, parcel: Parcel) -> None:
        """Promise a place to a parcel, or take the final one of a request whose early one is known."""
        entry = self._entries.get(parcel.request_id)
        if entry is not None:
            if not parcel.early:
                entry.request, entry.parcel = request, parcel
                entry.final.set()
        elif self._arrivals.expect(request, parcel):
            entry = self._entries[parcel.request_id] = _Entry(request, parcel)
            if not parcel.early:
                entry.final.set()

    def accept(self) -> None:
        """Give blocks to whoever came first, as far as they go, and start pulling."""
        for request_id, entry in self._entries.items():
            if entry.task is None:
                blocks = self._arrivals.reserve(request_id)
                if blocks is None:
                    return
                entry.task = asyncio.get_running_loop().create_task(self._bring(entry, blocks))

    def cancel(self, request_id: int) -> bool:
        """Drop a hand-over; False where there is none of that id."""
        entry = self._entries.pop(request_id, None)
        if entry is None:
            return False
        self._stop(entry, None)
        return True

    def fail(self, reason: str) -> None:
        """Give up every hand-over on its way."""
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            self._stop(entry, reason)

    def _stop(self, entry: _Entry, reason: str | None) -> None:
        if entry.task is not None:
            entry.task.cancel()  # it writes nothing more: it stands at an await and goes on with the cancellation
        self._arrivals.decline(entry.parcel.request_id, reason)

    async def _bring(self, entry: _Entry, blocks: tuple[int, ...]) -> None:
        start_s = self._clock()
        request_id = entry.parcel.request_id
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._pull(entry, blocks)
        except TimeoutError:
            self._arrivals.decline(request_id, f"its hand-over failed: it took longer than {self._timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 - whatever a mover runs into, its request must hear of it
            what = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
            self._arrivals.decline(request_id, f"its hand-over failed: {what}")
        else:
            self._arrivals.receive(entry.request, start_s)
        del self._entries[request_id]
        self._changed()

    async def _pull(self, entry: _Entry, blocks: tuple[int, ...]) -> None:
        parcel = entry.parcel
        await self._puller.pull(parcel, parcel.blocks, self._pool, blocks)
        await entry.final.wait()
        moved = [place for place, block in enumerate(entry.parcel.blocks) if block != parcel.blocks[place]]
        if moved:  # the source found the same prompt in its cache, and gave up blocks that it had announced
            sources = [entry.parcel.blocks[place] for place in moved]
            await self._puller.pull(entry.parcel, sources, self._pool, [blocks[place] for place in moved])
