"""A deployment in one event loop, with real channels, fake workers, and faults where a test wants them."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from policies.api import Role
from policies.registry import PolicySpec
from reference_impl.engine.api import SamplingParams
from reference_impl.engine.crew import StartCrew
from reference_impl.engine.pulling import FilePuller, Puller, WirePuller
from reference_impl.engine.shared_files import RunLock, shared_folder
from reference_impl.engine.testing import (
    FAKE_VOCAB_TOKENS,
    FakeCrews,
    Faults,
    FaultyPuller,
    FaultyWorkers,
    fake_spec,
    fake_tokens,
    without_memory,
)
from reference_impl.serve.channel import Channel, Network
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import GenerateRequest
from reference_impl.serve.http.settings import HttpSettings
from reference_impl.serve.loopback import Loopback
from reference_impl.serve.spec import LiveSpec, Record, Timing
from reference_impl.serve.task_server import TaskServer

_RUNS = itertools.count()
_DELAY_S = 0.03
QUICK = Timing(beat_s=0.05, silence_s=3.0, rejoin_s=0.3, patience_s=0.3, absence_s=5.0)


class BreakableChannel(Channel):
    """A channel that can be broken in the middle of a frame, or held up."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__()
        self._faults = faults
        self._broken = False
        self._held: list[bytes] | None = None

    def hold(self, seconds: float) -> None:
        """Keep frames back for a while, in order."""
        if self._held is None:
            self._held = []
            asyncio.get_running_loop().call_later(seconds, self._let_go)

    def _let_go(self) -> None:
        held, self._held = self._held or [], None
        for frame in held:
            if self.closed is None:
                super()._write(frame)

    def _write(self, frame: bytes) -> None:
        if self._held is not None:
            self._held.append(frame)
            return
        fault = self._faults.choose("channel", "cut", "delay", "drop") if self._faults is not None else None
        if self._broken or fault in ("cut", "drop"):
            super()._write(frame[: 0 if self._broken else len(frame) // 2 if fault == "cut" else len(frame)])
            self._broken = True
            asyncio.get_running_loop().call_soon(self._break)
        elif fault == "delay":
            self.hold(_DELAY_S)
            self._write(frame)
        else:
            super()._write(frame)

    def _break(self) -> None:
        self._end("broken by the test", abort=True)


@dataclass
class Answered:
    """What a client got."""

    prompt: tuple[int, ...]
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None
    error: ServingError | None = None

    def check(self) -> None:
        """Tokens are those that follow the prompt, each once, in order; and there is exactly one end."""
        assert tuple(self.tokens) == fake_tokens(self.prompt, self.max_tokens)[: len(self.tokens)]
        assert (self.finish is None) != (self.error is None), (self.finish, self.error)
        assert self.error is not None or len(self.tokens) == self.max_tokens


@dataclass
class Bench:
    """A running deployment, and what a test does with it."""

    loopback: Loopback
    crews: list[FakeCrews]
    channels: list[BreakableChannel]

    @property
    def spec(self) -> LiveSpec:
        return self.loopback.spec

    async def ask(self, prompt: Sequence[int], max_tokens: int = 8, front_door: int = 0, **params: Any) -> Answered:
        """One request, to its end."""
        answered = Answered(tuple(prompt), max_tokens)
        chosen = SamplingParams(max_tokens, **{"temperature": 0.0, **params})
        gateway = self.loopback.front_doors[front_door].node.gateway
        try:
            stream = gateway.generate(GenerateRequest(answered.prompt, chosen, self.spec.clock()))
            async for delta in stream:
                answered.tokens += [sampled.token for sampled in delta.tokens]
                answered.finish = delta.finish or answered.finish
        except ServingError as error:
            answered.error = error
        return answered

    async def ask_many(self, count: int, **arguments: Any) -> list[Answered]:
        """Requests at once, of different lengths, some with a common prefix."""
        prompts = [tuple(range(number % 3, number % 3 + 6 + number % 11)) for number in range(count)]
        return list(await asyncio.gather(*(self.ask(prompt, 3 + len(prompt) % 9, **arguments) for prompt in prompts)))

    async def until(self, fact: Callable[[], Any], what: str = "") -> None:
        """Wait for something to become true."""
        try:
            async with asyncio.timeout(10):
                while not fact():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"it did not come true: {what or fact}") from None

    async def until_ready(self) -> None:
        """Wait until every configured instance and a job executor can be had."""
        async with asyncio.timeout(10):
            for host in self.loopback.front_doors:
                while (health := await host.node.gateway.health()).instances_ready < len(self.spec.instances):
                    await asyncio.sleep(0.005)
                assert health.ready or health.detail

    async def check_nothing_is_held(self) -> None:
        """Every instance has all its blocks back, and no front door or job executor has anything open."""
        for host in self.loopback.task_executors:
            await self.until(partial(_is_empty, host.node.server), "all blocks are free, no sequence is left")
        for front_door in self.loopback.front_doors:
            assert front_door.node.gateway.beat().in_flight == 0


def _is_empty(server: TaskServer) -> bool:
    view = server.executor.view()
    free = view.free_blocks == view.total_blocks
    return free and not (view.running_requests or view.waiting_requests or server.in_flight)


Deploy = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture(scope="module")
def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="sf"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def deploy(folder: Path) -> Deploy:
    """Build and start a deployment: roles, then any field of its spec; ``iteration_s`` makes workers threads."""

    @asynccontextmanager
    async def start(
        *roles: Role,
        iteration_s: Any = 0.0,
        instance: dict[str, Any] | None = None,
        batch: Any = None,
        faults: Faults | None = None,
        dispatch: Any = "least_loaded:metric=tokens",
        scaling: Any = None,
        **fields: Any,
    ) -> AsyncIterator[Bench]:
        run = f"serve{os.getpid()}_{next(_RUNS)}"
        lock = RunLock(run)
        values: dict[str, Any] = {
            "run": run,
            "folder": folder,
            "epoch_s": time.monotonic(),
            "token": "secret",
            "instances": tuple(fake_spec(role, **(instance or {})) for role in roles),
            "dispatch": PolicySpec.parse(dispatch, "dispatch") if isinstance(dispatch, str) else dispatch,
            "scaling": scaling or PolicySpec.parse("fixed", "scaling"),
            "predictor": PolicySpec.parse("none", "prediction"),
            "http": HttpSettings("fake", 1024, FAKE_VOCAB_TOKENS),
            "prefix_block_tokens": 4,
            "record": Record(folder),
            "timing": QUICK,
        }
        if batch is not None:
            values["instances"] = tuple(replace(one, batch=batch) for one in values["instances"])
        spec = LiveSpec(**{**values, **fields})
        bench = Bench(Loopback(spec, lambda _seat: crews(), lambda: network(), lambda: puller()), [], [])

        def crews() -> StartCrew:
            serve = FaultyWorkers(faults) if faults is not None else None
            bench.crews.append(FakeCrews(spec.clock, run=run, iteration_s=iteration_s, serve=serve))
            return bench.crews[-1] if faults is None else without_memory(bench.crews[-1], faults)

        def puller() -> Puller | None:
            if faults is None:
                return None
            return FaultyPuller(FilePuller() if spec.task.handover.transport == "shm" else WirePuller(), faults)

        def network() -> Network:
            return Network("secret", make_channel)

        def make_channel() -> BreakableChannel:
            bench.channels.append(BreakableChannel(faults))
            return bench.channels[-1]

        try:
            async with asyncio.timeout(60):
                await bench.loopback.start()
                yield bench
        finally:
            await bench.loopback.stop()
            left = [path.name for path in shared_folder().glob(f"semiflow-{run}-*")]
            lock.release()
            assert not left, "shared memory was left behind"

    return start
