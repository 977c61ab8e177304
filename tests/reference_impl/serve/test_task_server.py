"""An instance's face to front doors whose connections break and are made anew, heard of in whatever order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any, Literal

import pytest

from policies.api import Role
from reference_impl.engine.api import ForwardBatch
from reference_impl.engine.post import HandoverSettings
from reference_impl.engine.shared_files import sweep
from reference_impl.engine.task_executor import TaskExecutor, TaskSettings
from reference_impl.engine.testing import FakeCrews, fake_builder, fake_request, fake_spec, fake_tokens
from reference_impl.serve import task_server
from reference_impl.serve.channel import Channel
from reference_impl.serve.messages import Adopt, Cancel, End, Hello, Progress, Release, Submit
from reference_impl.serve.spool import LogRows
from reference_impl.serve.task_server import TaskServer

Granularity = Literal["request", "layer"]
_RUNS = count()
PROMPT = tuple(range(20))


class Line(Channel):
    """A front door's connection that keeps what it is sent."""

    def __init__(self, server: TaskServer) -> None:
        super().__init__()
        self.sent: list[Progress] = []
        server.accept(self, Hello("front_door", 0))

    def send(self, message: tuple[Any, ...]) -> bool:
        if self.closed is None and isinstance(message, Progress):
            self.sent.append(message)
        return self.closed is None

    def fail(self) -> None:
        """It breaks, and the instance hears of it."""
        self._end("it broke", abort=True)

    def tokens(self) -> list[int]:
        return [sampled.token for progress in self.sent for said in progress.tokens for sampled in said.tokens]

    def positions(self) -> list[int]:
        return [tokens.position for progress in self.sent for tokens in progress.tokens]

    def parcels(self) -> list[Any]:
        return [ready.parcel for progress in self.sent for ready in progress.ready]

    def adopted(self) -> list[tuple[int, int]]:
        return [(named.request_id, named.attempt) for progress in self.sent for named in progress.adopted]


class Stage:
    """Instances and their faces."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._start_s = time.monotonic()
        self.servers: list[TaskServer] = []
        self.transfers: list[tuple[Any, ...]] = []
        """Rows of the event log."""

    def clock(self) -> float:
        return time.monotonic() - self._start_s

    async def add(
        self,
        role: Role,
        iteration_s: float | Callable[[ForwardBatch], float] = 0.002,
        granularity: Granularity = "request",
    ) -> TaskServer:
        crews = FakeCrews(self.clock, run=self._run, iteration_s=iteration_s)
        build = fake_builder(len(self.servers), fake_spec(role))
        settings = TaskSettings(handover=HandoverSettings("shm", granularity))
        executor = TaskExecutor(build, crews, settings, self.clock)
        server = TaskServer(executor, None, self._log, self.clock, lambda: None)
        self.servers.append(server)
        await executor.start()
        return server

    def _log(self, rows: LogRows) -> None:
        self.transfers += rows.get("transfer", [])

    async def until(self, fact: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not fact():
                await asyncio.sleep(0.001)


Staged = Callable[[Callable[[Stage], Awaitable[None]]], None]


@pytest.fixture
def staged() -> Iterator[Staged]:
    """Run a test's body in an event loop, with a stage; in the end nothing is left of it."""
    name = f"test_server_{time.monotonic_ns()}_{next(_RUNS)}"

    def run(body: Callable[[Stage], Awaitable[None]]) -> None:
        async def whole() -> None:
            stage = Stage(name)
            try:
                await body(stage)
            finally:
                for server in stage.servers:
                    await server.close("over")

        asyncio.run(whole())

    yield run
    assert sweep(name) == []


def is_empty(server: TaskServer) -> bool:
    view = server.executor.view()
    return not (view.running_requests or view.waiting_requests or server.in_flight)


def test_a_request_that_is_brought_anew_goes_on_from_what_its_client_has(staged: Staged) -> None:
    """The new connection is heard before the end of the old one."""

    @staged
    async def _(stage: Stage) -> None:
        server = await stage.add("colocated", iteration_s=0.01)
        old = Line(server)
        old.on_message(Submit(1, fake_request(0, PROMPT, 12)))
        await stage.until(lambda: len(old.positions()) >= 4)
        new = Line(server)
        known = fake_tokens(PROMPT, 2)  # the rest was lost with the connection
        new.on_message(Submit(2, fake_request(0, PROMPT, 12, generated=known)))
        await stage.until(lambda: len(new.positions()) >= 2)
        old.fail()
        await stage.until(lambda: len(new.positions()) >= 10)
        assert new.positions() == list(range(2, 12))
        assert (*known, *new.tokens()) == fake_tokens(PROMPT, 12)
        await stage.until(lambda: is_empty(server))


@pytest.mark.parametrize("word", [Cancel(0, None), End(0), Release(0)], ids=["cancel", "end", "release"])
def test_last_words_over_an_old_connection_are_not_about_what_came_over_the_new_one(staged: Staged, word: Any) -> None:
    @staged
    async def _(stage: Stage) -> None:
        server = await stage.add("colocated")
        old, new = Line(server), Line(server)
        old.on_message(Submit(1, fake_request(0, PROMPT, 12)))
        new.on_message(Submit(2, fake_request(0, PROMPT, 12)))
        old.on_message(word)
        await stage.until(lambda: len(new.positions()) >= 12)
        assert tuple(new.tokens()) == fake_tokens(PROMPT, 12)


def test_a_hand_over_that_is_brought_anew_takes_the_place_of_the_one_before(staged: Staged) -> None:
    @staged
    async def _(stage: Stage) -> None:
        sources = [await stage.add("prefill") for _ in range(2)]
        target = await stage.add("decode", iteration_s=0.01)
        lines = [Line(source) for source in sources]
        for line in lines:
            line.on_message(Submit(1, fake_request(0, PROMPT, 12)))
        await stage.until(lambda: all(line.parcels() for line in lines))
        request = fake_request(0, PROMPT, 12, generated=fake_tokens(PROMPT, 1))
        old, new = Line(target), Line(target)
        old.on_message(Adopt(1, request, lines[0].parcels()[0]))
        await stage.until(lambda: len(old.positions()) >= 4)
        new.on_message(Adopt(2, request, lines[1].parcels()[0]))
        await stage.until(lambda: is_empty(target))
        assert new.adopted() == [(0, 2)]
        assert new.positions() == list(range(1, 12))
        assert tuple(new.tokens()) == fake_tokens(PROMPT, 12)[1:]


def test_an_early_parcel_and_its_final_one_are_one_hand_over(staged: Staged) -> None:
    @staged
    async def _(stage: Stage) -> None:
        source, target = await stage.add("prefill", 0.05, "layer"), await stage.add("decode", 0.002, "layer")
        line, other = Line(source), Line(target)
        line.on_message(Submit(1, fake_request(0, PROMPT, 6)))
        await stage.until(line.parcels)
        other.on_message(Adopt(1, fake_request(0, PROMPT, 6), line.parcels()[0]))
        await stage.until(lambda: target.executor.view().running_requests == 1)
        await stage.until(lambda: len(line.parcels()) == 2)
        final, final_s = fake_request(0, PROMPT, 6, generated=line.tokens()), stage.clock()
        other.on_message(Adopt(1, final, line.parcels()[1]))
        await stage.until(lambda: is_empty(target))
        assert other.adopted() == [(0, 1)]
        assert other.positions() == list(range(1, 6))
        ((*_, begun_s),) = stage.transfers
        assert begun_s < final_s, "what was pulled early is kept"


def test_kv_that_somebody_may_be_pulling_outlasts_the_connection_to_its_front_door(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_server, "_PARTING_S", 0.05)

    def iteration_s(batch: ForwardBatch) -> float:
        return 30.0 if any(row.request_id == 1 for row in batch.chunks) else 0.002

    @staged
    async def _(stage: Stage) -> None:
        server = await stage.add("prefill", iteration_s)
        line = Line(server)
        line.on_message(Submit(1, fake_request(0, PROMPT, 12)))
        await stage.until(line.parcels)
        line.on_message(Submit(1, fake_request(1, PROMPT, 12)))
        await stage.until(lambda: server.executor.view().running_requests == 2)
        line.fail()
        assert server.in_flight == 1, "what is still computed is dropped at once"
        assert server.executor.view().running_requests == 1
        await stage.until(lambda: is_empty(server))
