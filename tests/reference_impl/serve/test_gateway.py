"""What a front door does for its jobs, on a clock that the test moves on and without anybody at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reference_impl.engine.api import SamplingParams
from reference_impl.engine.testing import fake_spec
from reference_impl.serve.gateway import GatewaySettings, LiveGateway
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import GenerateRequest
from reference_impl.serve.messages import Ask, Kind
from reference_impl.serve.peers import Callbacks


class Present:
    """Who is connected, and what they were sent."""

    def __init__(self, callbacks: Callbacks) -> None:
        self.callbacks = callbacks
        self.executors: list[int] = []
        self.sent: list[Any] = []

    def connected(self, kind: Kind) -> list[int]:
        return self.executors if kind == "job_executor" else []

    def send(self, _key: object, message: Any) -> None:
        self.sent.append(message)

    def close(self, reason: str) -> None:
        """Nobody is connected."""

    def come(self) -> None:
        self.executors = [0]
        self.callbacks.on_connected(("job_executor", 0))

    def go(self) -> None:
        self.executors = []
        self.callbacks.on_lost(("job_executor", 0), "it is gone")


class Stage:
    """A front door and its clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        settings = GatewaySettings((fake_spec(),), 4, absence_s=30.0)
        self.gateway = LiveGateway(settings, None, lambda rows: None, lambda: self.now_s)
        self.gateway.open(self._peers)  # type: ignore[arg-type]

    def _peers(self, callbacks: Callbacks) -> Present:
        self.peers = Present(callbacks)
        return self.peers

    async def at(self, now_s: float) -> None:
        """Let what is due by then happen."""
        self.now_s = now_s
        for _ in range(3):
            await asyncio.sleep(0)


def staged(body: Callable[[Stage], Awaitable[None]]) -> None:
    """Run a test's body in an event loop whose timers go by the stage's clock."""

    async def whole() -> None:
        stage = Stage()
        asyncio.get_running_loop().time = lambda: stage.now_s  # type: ignore[method-assign]
        await body(stage)

    asyncio.run(whole())


def test_the_wait_for_a_job_executor_begins_anew_with_each_one_that_came_and_went() -> None:
    @staged
    async def _(stage: Stage) -> None:
        stream = stage.gateway.generate(GenerateRequest((1, 2, 3), SamplingParams(2), 0.0))
        await stage.at(20.0)
        stage.peers.come()
        await stage.at(29.0)
        stage.peers.go()
        await stage.at(31.0)
        assert stage.gateway.beat().in_flight == 1
        await stage.at(58.9)
        assert stage.gateway.beat().in_flight == 1
        await stage.at(59.1)
        assert stage.gateway.beat().in_flight == 0
        with pytest.raises(ServingError, match="no job executor has been there for 30 s"):
            await anext(stream)
        assert sum(isinstance(message, Ask) for message in stage.peers.sent) == 1


def test_a_request_without_a_job_executor_is_asked_about_when_one_comes() -> None:
    @staged
    async def _(stage: Stage) -> None:
        stage.gateway.generate(GenerateRequest((1, 2, 3), SamplingParams(2), 0.0))
        assert stage.gateway.stats().queued_requests == 1
        stage.peers.come()
        await stage.at(100.0)
        assert [message.phase for message in stage.peers.sent] == ["prefill"]
        assert stage.gateway.beat().in_flight == 1
