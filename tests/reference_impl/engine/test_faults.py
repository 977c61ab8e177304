"""Seeded random faults at the seams: every request ends exactly once with the right tokens, and nothing is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from reference_impl.engine.engine import EngineSettings
from reference_impl.engine.post import HandoverSettings
from reference_impl.engine.pulling import FilePuller, WirePuller
from reference_impl.engine.shared_files import sweep
from reference_impl.engine.task_executor import TaskExecutor, TaskSettings
from reference_impl.engine.testing import (
    BlockThief,
    FakeCrews,
    FakeDoor,
    Faults,
    FaultyPuller,
    FaultyWorkers,
    fake_builder,
    fake_request,
    fake_spec,
    fake_tokens,
    refusing,
    without_memory,
)

Make = Callable[..., Any]
FAULTS_EACH = 24


class Fleet:
    """Task executors with faults at every seam."""

    def __init__(self, run: str, clock: Callable[[], float], faults: Faults, handover: HandoverSettings) -> None:
        self.clock, self.run, self.faults, self.handover = clock, run, faults, handover
        self.executors: list[TaskExecutor] = []

    def add(self, role: Any, plan_ahead: bool) -> TaskExecutor:
        spec = fake_spec(role, "chunked_prefill:chunk_tokens=16", kv_blocks=48)
        crews = FakeCrews(self.clock, run=self.run, serve=FaultyWorkers(self.faults))
        inner = FilePuller() if self.handover.transport == "shm" else WirePuller()
        executor = TaskExecutor(
            fake_builder(len(self.executors), spec, kind=refusing(self.faults)),
            without_memory(crews, self.faults),
            TaskSettings(plan_ahead, stall_timeout_s=0.2, handover=self.handover),
            self.clock,
            FaultyPuller(inner, self.faults),
        )
        self.executors.append(executor)
        return executor

    async def start(self) -> None:
        for executor in self.executors:
            await executor.start()

    async def settle(self) -> None:
        """Wait until every instance stands ready and holds nothing; then stop them all."""
        async with asyncio.timeout(20):
            while any(_busy(executor) for executor in self.executors):
                await asyncio.sleep(0.001)
        for executor in self.executors:
            assert executor.running is not None
            executor.running.engine.instance.check_integrity()
            await executor.stop()


def _busy(executor: TaskExecutor) -> bool:
    view = executor.view()
    return view.state != "ready" or view.free_blocks < view.total_blocks or view.waiting_tokens > 0


@pytest.mark.parametrize("seed", range(8))
def test_every_request_ends_once_with_the_right_tokens_whatever_fails(
    run: str, clock: Callable[[], float], prompts: Make, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("reference_impl.engine.task_executor.RETRY_S", 0.001)
    rng = random.Random(seed)
    faults = Faults(seed, rate=0.0)
    transport: Any = rng.choice(["shm", "tcp"])
    granularity: Any = rng.choice(["request", "layer"])
    fleet = Fleet(run, clock, faults, HandoverSettings(transport, granularity, timeout_s=0.3))
    plan_ahead = bool(seed % 2)
    prefills = [fleet.add("prefill", plan_ahead) for _ in range(2)]
    decodes = [fleet.add("decode", plan_ahead) for _ in range(2)]
    mixed = [fleet.add("semi_pd", plan_ahead), fleet.add("colocated", plan_ahead)]

    async def whole() -> None:
        await fleet.start()
        faults.begin(rate=0.05, limit=FAULTS_EACH)
        doors = [FakeDoor(prefills, decodes, tries=100), FakeDoor(mixed, tries=100)]
        number = 0
        while faults.left:
            drawn = prompts(seed * 1000 + number, 12)
            for door in doors:
                for i, prompt in enumerate(drawn, number):
                    door.submit(fake_request(i, prompt, 6 + i % 20))
            for _ in range(2):
                gone = rng.randrange(number, number + 12)
                await asyncio.sleep(0.002 * rng.random())
                if not doors[0].jobs[gone].ends:
                    doors[0].cancel(gone)
            for door in doors:
                await door.finished()
            number += 12
        await fleet.settle()
        for door in doors:
            for i, job in door.jobs.items():
                assert len(job.ends) == 1, (i, job)
                expected = fake_tokens(job.request.prompt, job.request.params.max_tokens)
                assert tuple(job.tokens) == expected[: len(job.tokens)], (i, job)
                assert job.gone or tuple(job.tokens) == expected, (i, job)

    asyncio.run(whole())
    assert sum(faults.counts.values()) == FAULTS_EACH
    assert sweep(run) == []


@pytest.mark.parametrize("ahead", [False, True], ids=["plain", "ahead"])
@pytest.mark.parametrize("seed", range(6))
def test_blocks_that_somebody_else_takes_cost_time_and_no_tokens(
    hand: Make, prompts: Make, seed: int, ahead: bool
) -> None:
    rng = random.Random(seed)
    role, batch = rng.choice(["colocated", "semi_pd"]), rng.choice(["prefill_first", "decode_first"])
    engine = hand(role, batch, settings=EngineSettings(plan_ahead=ahead, vocab_tokens=1000), kv_blocks=64)
    thief = BlockThief(engine.engine.instance, faults := Faults(seed, rate=0.5))
    drawn = prompts(seed, 12)
    engine.submit(*(fake_request(i, prompt, 25) for i, prompt in enumerate(drawn)))
    for _ in range(150):
        thief.act(rng.randint(1, 60))
        engine.move(rng.randrange(len(engine.engine.loops)))
    thief.give_back()
    engine.engine.stir()
    engine.run()
    assert faults.counts["blocks refuse"] > 10
    assert engine.tokens == {i: list(fake_tokens(prompt, 25)) for i, prompt in enumerate(drawn)}
    engine.check_empty()
