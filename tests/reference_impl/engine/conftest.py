"""Instances on fake workers: driven by hand without an event loop, or as task executors in one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from policies.api import Role
from reference_impl.core.instance import Instance
from reference_impl.engine.api import EngineRequest, FinishReason
from reference_impl.engine.engine import Engine, EngineSettings
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.local_executor import LocalExecutor
from reference_impl.engine.post import HandoverSettings
from reference_impl.engine.shared_files import shared_folder, sweep
from reference_impl.engine.step import Failure, Parcel
from reference_impl.engine.task_executor import TaskExecutor, TaskSettings
from reference_impl.engine.testing import FakeCrews, FakeRunner, fake_builder, fake_layout, fake_spec
from reference_impl.events import EventLog

_RUNS = count()


@dataclass
class Hand:
    """An engine whose lanes are moved on by hand, and what it has told."""

    engine: Engine
    tokens: dict[int, list[int]] = field(default_factory=dict)
    ends: dict[int, FinishReason] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    def submit(self, *requests: EngineRequest) -> None:
        for request in requests:
            self.engine.submit(request)
        self.listen()

    def move(self, place: int = 0) -> bool:
        """Plan and launch what can be, then apply lane ``place``'s oldest outcome; False where it has none."""
        self.engine.pump()
        flies = bool(self.engine.loops[place].flights)
        if flies:
            self.engine.collect(place)
        self.listen()
        return flies

    def run(self, moves: int = 10_000) -> None:
        """Until nothing moves any more."""
        for _ in range(moves):
            moved = [self.move(place) for place in range(len(self.engine.loops))]
            if not any(moved):
                return
        raise AssertionError(f"still busy after {moves} iterations")

    def listen(self) -> None:
        step = self.engine.news.take(False)
        if step is None:
            return
        for output in step.outputs:
            assert output.request_id not in self.ends, f"request {output.request_id} got a token after its end"
            self.tokens.setdefault(output.request_id, []).extend(sampled.token for sampled in output.tokens)
            if output.finish is not None:
                self.ends[output.request_id] = output.finish
        self.failed += step.failed
        self.parcels += step.parcels
        self.dropped += step.dropped

    def check_empty(self) -> None:
        """Nothing is here any more, and every block is free."""
        instance = self.engine.instance
        instance.check_integrity()
        assert self.engine.lives == {}
        assert instance.pool.available == instance.pool.total
        assert instance.running == instance.waiting_tokens == instance.resting_tokens == 0


@pytest.fixture
def clock() -> Callable[[], float]:
    """Seconds since the test began."""
    start_s = time.monotonic()
    return lambda: time.monotonic() - start_s


@pytest.fixture
def hand(tmp_path: Path) -> Callable[..., Hand]:
    """Build an engine with fake runners in this process, on a clock that a call moves on by a millisecond."""
    ticks = count(1)

    def clock() -> float:
        return next(ticks) * 1e-3

    def build(
        role: Role = "colocated", batch: str = "prefill_first", *, settings: EngineSettings | None = None, **fields: Any
    ) -> Hand:
        spec = fake_spec(role, batch, **fields)
        instance = fake_builder(0, spec)(EventLog(None))
        pool = KvFile.create(tmp_path / f"pool-{next(ticks)}", fake_layout(spec.block_tokens), spec.kv_blocks)
        executors = [LocalExecutor(FakeRunner(pool, clock)) for _ in instance.lanes]
        return Hand(Engine(instance, executors, settings or EngineSettings(vocab_tokens=1000), clock))

    return build


@pytest.fixture
def run() -> Iterator[str]:
    """The name of a run whose shared files must be gone in the end."""
    name = f"test_{time.monotonic_ns()}_{next(_RUNS)}"
    yield name
    left = sweep(name)
    assert left == [], f"files were left in {shared_folder()}"


class WatchedExecutor(TaskExecutor):
    """A task executor whose fake crews a test can reach."""

    def __init__(self, build: Any, starts: FakeCrews, settings: TaskSettings, clock: Callable[[], float]) -> None:
        super().__init__(build, starts, settings, clock)
        self.crews = starts.crews

    @property
    def instance(self) -> Instance:
        assert self.running is not None
        return self.running.engine.instance


@pytest.fixture
def executor(run: str, clock: Callable[[], float]) -> Callable[..., WatchedExecutor]:
    """Build a task executor on fake workers."""
    ids = count()

    def build(
        role: Role = "colocated",
        batch: str = "prefill_first",
        *,
        plan_ahead: bool = False,
        stall_timeout_s: float = 30.0,
        handover: HandoverSettings | None = None,
        crews: dict[str, Any] | None = None,
        **fields: Any,
    ) -> WatchedExecutor:
        settings = TaskSettings(plan_ahead, stall_timeout_s, handover or HandoverSettings())
        starts = FakeCrews(clock, run=run, **(crews or {}))
        return WatchedExecutor(fake_builder(next(ids), fake_spec(role, batch, **fields)), starts, settings, clock)

    return build


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait for a condition that an event loop brings about."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def prompts() -> Callable[..., list[list[int]]]:
    """Random prompts; every other one begins with the same 20 tokens."""

    def draw(seed: int, number: int, longest: int = 60) -> list[list[int]]:
        rng = random.Random(seed)
        shared = [rng.randrange(1000) for _ in range(20)]
        drawn = [[rng.randrange(1000) for _ in range(rng.randint(1, longest))] for _ in range(number)]
        return [shared + prompt if place % 2 else prompt for place, prompt in enumerate(drawn)]

    return draw
