"""Open loop: requests leave when they are due, on an injected clock, whatever the server does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest

from workloads.client.ask import Ask
from workloads.client.lag import lag
from workloads.client.load import Load, LoadRules
from workloads.client.record import Record
from workloads.client.wire import DroppedError, Mark, Reply, UnreachableError

OK = b'data: {"choices": [{"text": "a", "finish_reason": "length"}]}\n\ndata: [DONE]\n\n'
RULES = LoadRules("/completions", "completions", timeout_s=60.0)


class VirtualClock:
    """Time passes only where somebody waits for it, and then by ``late_s`` too much."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.time_s = 0.0
        self.late_s = late_s

    def now_s(self) -> float:
        return self.time_s

    async def sleep_until(self, moment_s: float) -> None:
        self.time_s = max(self.time_s, moment_s) + self.late_s
        await asyncio.sleep(0)


class FakeReply:
    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.content_type = "text/event-stream"
        self._body = body

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self._body

    async def text(self) -> str:
        return self._body.decode()


class FakeWire:
    """Answers by a function of the request's number; counts how many are under way."""

    def __init__(self, clock: VirtualClock, answer: Callable[[int], Reply]) -> None:
        self.clock, self.answer = clock, answer
        self.sent: list[tuple[float, bytes]] = []
        self.under_way = self.most_under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def get(self, path: str) -> object:
        raise AssertionError(path)

    @asynccontextmanager
    async def post(self, path: str, body: bytes, headers: Mapping[str, str], mark: Mark) -> AsyncIterator[Reply]:
        number = len(self.sent)
        mark.sent_s = self.clock.now_s()
        self.sent.append((mark.sent_s, body))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
            yield self.answer(number)
        finally:
            self.under_way -= 1


def asks(*due_s: float) -> Iterator[Ask]:
    return (Ask(row, at_s, 4, 1, b"%d" % row, {}) for row, at_s in enumerate(due_s))


def good(_: int) -> Reply:
    return FakeReply(200, OK)


def ran(wire: FakeWire, rules: LoadRules, *due_s: float) -> Load:
    load = Load(wire, wire.clock, rules)  # type: ignore[arg-type]  # the fake answers no GET
    asyncio.run(load.run(asks(*due_s)))
    return load


def test_every_request_leaves_when_it_is_due() -> None:
    wire = FakeWire(VirtualClock(), good)
    load = ran(wire, RULES, 0.0, 0.5, 0.5, 7.25)
    assert [sent for sent, _ in wire.sent] == [0.0, 0.5, 0.5, 7.25]
    assert [body for _, body in wire.sent] == [b"0", b"1", b"2", b"3"]
    assert {record.outcome for record in load.records} == {"finished"}
    assert lag(load.records) == (0.0, 0.0, 0.0)


def test_a_late_client_is_measured() -> None:
    load = ran(FakeWire(VirtualClock(late_s=0.004), good), RULES, 0.0, 1.0, 2.0)
    found = lag(load.records)
    assert found is not None
    assert found.median_s == pytest.approx(0.004)
    assert found.max_s == pytest.approx(0.004)


def test_no_request_waits_for_an_answer() -> None:
    async def run() -> FakeWire:
        wire = FakeWire(VirtualClock(), good)
        wire.gate.clear()
        load = Load(wire, wire.clock, RULES)  # type: ignore[arg-type]
        running = asyncio.create_task(load.run(asks(*(0.01 * row for row in range(300)))))
        while len(wire.sent) < 300:
            await asyncio.sleep(0)
        wire.gate.set()
        await running
        return wire

    wire = asyncio.run(run())
    assert wire.most_under_way == 300
    assert [sent for sent, _ in wire.sent] == pytest.approx([0.01 * row for row in range(300)])


def test_a_bound_on_concurrency_is_kept() -> None:
    async def run() -> FakeWire:
        wire = FakeWire(VirtualClock(), good)
        wire.gate.clear()
        rules = LoadRules("/completions", "completions", timeout_s=60.0, max_concurrency=3)
        running = asyncio.create_task(Load(wire, wire.clock, rules).run(asks(*[0.0] * 10)))  # type: ignore[arg-type]
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(wire.sent) == 3
        wire.gate.set()
        await running
        return wire

    wire = asyncio.run(run())
    assert (len(wire.sent), wire.most_under_way) == (10, 3)


@pytest.mark.parametrize(
    ("rules", "sent", "outcome"),
    [(RULES, 1, "rejected"), (LoadRules("/completions", "completions", 60.0, retries=2), 3, "finished")],
)
def test_what_was_not_taken_is_sent_again_only_if_asked(rules: LoadRules, sent: int, outcome: str) -> None:
    answers = [FakeReply(503, b"busy"), FakeReply(429, b"slow down"), FakeReply(200, OK)]
    wire = FakeWire(VirtualClock(), lambda number: answers[number])
    (record,) = ran(wire, rules, 1.0).records
    assert (len(wire.sent), record.outcome, record.attempts) == (sent, outcome, sent)
    assert record.sent_s == 1.0
    assert record.error == ("http_503" if outcome == "rejected" else None)


def test_other_errors_are_never_sent_again() -> None:
    wire = FakeWire(VirtualClock(), lambda _: FakeReply(400, b'{"error": {"message": "bad"}}'))
    (record,) = ran(wire, LoadRules("/completions", "completions", 60.0, retries=5), 0.0).records
    assert (record.attempts, record.outcome, record.error, record.message) == (1, "rejected", "http_400", "bad")


@pytest.mark.parametrize(
    ("error", "kind"), [(UnreachableError("refused"), "connect"), (DroppedError("reset"), "closed")]
)
def test_a_connection_that_fails_is_a_failed_request(error: Exception, kind: str) -> None:
    def fail(_: int) -> Reply:
        raise error

    (record,) = ran(FakeWire(VirtualClock(), fail), RULES, 0.0).records
    assert (record.outcome, record.error, record.message) == ("failed", kind, str(error))


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    async def run() -> Load:
        wire = FakeWire(VirtualClock(), good)
        wire.gate.clear()
        load = Load(wire, wire.clock, LoadRules("/completions", "completions", 0.01))  # type: ignore[arg-type]
        await load.run(asks(0.0, 0.0))
        assert wire.under_way == 0
        return load

    assert [(record.outcome, record.error) for record in asyncio.run(run()).records] == [("failed", "timeout")] * 2


def test_a_stop_keeps_what_there_is() -> None:
    async def run() -> Load:
        wire = FakeWire(VirtualClock(), good)
        load = Load(wire, wire.clock, RULES)  # type: ignore[arg-type]
        endless = (Ask(row, row * 1.0, 4, 1, b"", {}) for row in range(10**9))
        running = asyncio.create_task(load.run(endless))
        while len(load.records) < 5:
            await asyncio.sleep(0)
        wire.gate.clear()
        while wire.under_way < 3:
            await asyncio.sleep(0)
        load.stop()
        await running
        assert wire.under_way == 0
        return load

    outcomes = [record.outcome for record in asyncio.run(run()).records]
    assert set(outcomes) == {"finished", "unfinished"}
    assert outcomes == sorted(outcomes)


def test_a_defect_of_the_client_is_no_failed_request() -> None:
    def break_down(_: int) -> Reply:
        raise ZeroDivisionError("our own")

    with pytest.raises(ZeroDivisionError, match="our own"):
        ran(FakeWire(VirtualClock(), break_down), RULES, 0.0, 1.0, 2.0)


def test_the_end_of_requests_is_told() -> None:
    seen: list[int] = []
    wire = FakeWire(VirtualClock(), good)
    asyncio.run(Load(wire, wire.clock, RULES, seen.append).run(asks(0.0, 1.0, 2.0)))  # type: ignore[arg-type]
    assert seen[-1] == 3


def test_chunks_of_one_moment_keep_their_counts() -> None:
    usage = [
        json.dumps({"choices": [{"text": "a"}], "usage": {"completion_tokens": count}}).encode() for count in (1, 4)
    ]
    body = b"".join(b"data: " + data + b"\n\n" for data in usage) + b"data: [DONE]\n\n"
    (record,) = ran(FakeWire(VirtualClock(), lambda _: FakeReply(200, body)), RULES, 2.0).records
    assert (record.times_s.tolist(), record.counts()) == ([2.0, 2.0], [1, 3])
    assert (record.first_token_s, record.served_output_tokens) == (2.0, 4)


def test_what_waits_for_a_request_leaves_after_its_end_whatever_that_was() -> None:
    clock = VirtualClock()
    wire = FakeWire(clock, lambda number: FakeReply(503 if number == 0 else 200, OK))

    def follow(record: Record, ended_s: float) -> list[Ask]:
        row = record.row + 10
        return [Ask(row, ended_s + 3.0, 4, 1, b"%d" % row, {})] if row < 21 else []

    seen: list[int] = []
    load = Load(wire, clock, RULES, seen.append, follow)  # type: ignore[arg-type]  # the fake answers no GET
    asyncio.run(load.run(asks(1.0)))
    assert wire.sent == [(1.0, b"0"), (4.0, b"10"), (7.0, b"20")]
    assert [record.scheduled_s for record in load.records] == [1.0, 4.0, 7.0]
    assert [record.outcome for record in load.records] == ["rejected", "finished", "finished"]
    assert seen == [1, 2, 3]


def test_turns_and_timed_requests_share_the_slots() -> None:
    rules = LoadRules("/completions", "completions", timeout_s=60.0, max_concurrency=1)
    wire = FakeWire(VirtualClock(), good)
    turns = iter([[Ask(7, 0.0, 4, 1, b"7", {})], []])
    load = Load(wire, wire.clock, rules, follow=lambda *_: next(turns, []))  # type: ignore[arg-type]
    asyncio.run(load.run(asks(0.0, 0.0, 0.0)))
    assert sorted(record.row for record in load.records) == [0, 1, 2, 7]
    assert wire.most_under_way == 1
