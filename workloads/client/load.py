"""Every request is sent when it is due; what follows the end of another becomes due then (closed loop)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass

from workloads.client.answer import Answer, Kind
from workloads.client.ask import Ask
from workloads.client.clock import Clock
from workloads.client.exchange import exchange
from workloads.client.record import Record
from workloads.client.wire import Wire

_FIRST_RETRY_S = 0.1
_NOT_TAKEN = frozenset({"connect", "http_429", "http_503"})
"""Errors of requests that the server did not take: these may be sent again."""


@dataclass(frozen=True)
class LoadRules:
    """How requests are sent, beyond when."""

    path: str
    kind: Kind
    timeout_s: float
    max_concurrency: int | None = None
    """None: open loop. A number: a request that is due waits until fewer are under way."""
    retries: int = 0
    """How often a request is sent again that the server did not take (no connection, 429, 503)."""
    keep_texts: bool = False


class Load:
    """Sends requests and gathers their records."""

    def __init__(
        self,
        wire: Wire,
        clock: Clock,
        rules: LoadRules,
        on_done: Callable[[int], None] = lambda _: None,
        follow: Callable[[Record, float], Iterable[Ask]] = lambda *_: (),
    ) -> None:
        """``on_done`` is called with the number of requests that are over; ``follow`` with each one's record and when
        it ended: it gives those that wait for it."""
        self._wire = wire
        self._clock = clock
        self.rules = rules
        self._on_done = on_done
        self._follow = follow
        self._over = 0
        self._slots = asyncio.Semaphore(rules.max_concurrency) if rules.max_concurrency is not None else None
        self._under_way: set[asyncio.Task[None]] = set()
        self._pacer: asyncio.Task[None] | None = None
        self._defect: BaseException | None = None
        self.stopped = False
        self.cpu_s = 0.0
        """CPU time of this process while it ran."""
        self.records: list[Record] = []
        """Of everything that was due so far, in this order."""

    async def run(self, asks: Iterator[Ask]) -> None:
        """Send all of ``asks`` and wait for the answers, or until :meth:`stop`."""
        before_s = time.process_time()
        self._pacer = asyncio.create_task(self._pace(asks))
        try:
            await self._pacer
        except asyncio.CancelledError:
            if not self.stopped:
                raise
        while self._under_way:
            await asyncio.wait(self._under_way)
        self.cpu_s = time.process_time() - before_s
        if self._defect is not None:
            raise self._defect

    def stop(self) -> None:
        """Send nothing more and break off what is under way: those requests stay unfinished."""
        self.stopped = True
        if self._pacer is not None:
            self._pacer.cancel()
        for task in self._under_way:
            task.cancel()

    async def _pace(self, asks: Iterator[Ask]) -> None:
        for ask in asks:
            await self._clock.sleep_until(ask.at_s)
            if self._slots is not None:
                await self._slots.acquire()
            self._begin(self._send(ask, self._note(ask)))
            await asyncio.sleep(0)  # it leaves before the next one is made

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    async def _wait_and_send(self, ask: Ask) -> None:
        await self._clock.sleep_until(ask.at_s)
        if self._slots is not None:
            await self._slots.acquire()
        await self._send(ask, self._note(ask))

    def _note(self, ask: Ask) -> Record:
        answer = Answer(self.rules.kind, keep_text=self.rules.keep_texts)
        record = Record(ask.row, ask.at_s, ask.prompt_tokens, ask.output_tokens, answer)
        self.records.append(record)
        return record

    async def _send(self, ask: Ask, record: Record) -> None:
        """Send one request and take its answer, having a slot; then let those go that wait for its end."""
        try:
            await self._settle(ask, record)
        finally:
            if self._slots is not None:
                self._slots.release()
            self._over += 1
            self._on_done(self._over)
        if not self.stopped:
            ended_s = self._clock.now_s() if record.ended_s is None else record.ended_s
            for follower in self._follow(record, ended_s):
                self._begin(self._wait_and_send(follower))

    async def _settle(self, ask: Ask, record: Record) -> None:
        """Fill the record in, whatever becomes of the request."""
        rules = self.rules
        try:
            async with asyncio.timeout(rules.timeout_s):
                await self._exchange(ask, record)
        except TimeoutError:
            record.end("failed", "timeout", f"no whole answer within {rules.timeout_s:g} s")
        except asyncio.CancelledError:
            if not self.stopped:
                raise
            record.end("unfinished")

    async def _exchange(self, ask: Ask, record: Record) -> None:
        for retry in range(self.rules.retries + 1):
            await exchange(self._wire, self.rules.path, ask, record, self._clock.now_s)
            if record.error not in _NOT_TAKEN or retry == self.rules.retries:
                return
            await self._clock.sleep_until(self._clock.now_s() + _FIRST_RETRY_S * 2**retry)
            record.ended_s = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._defect = task.exception()
            self.stop()
