"""What a front door does for its jobs, on a clock that the test moves on and without anybody at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from policies.api import Dispatch, LengthPredictor
from policies.registry import PolicySpec
from reference_impl.engine.api import SampledToken, SamplingParams
from reference_impl.engine.testing import fake_spec
from reference_impl.serve.gateway import GatewaySettings, LiveGateway
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import GenerateRequest
from reference_impl.serve.messages import Answer, Ask, Kind, Progress, Tokens
from reference_impl.serve.peers import Callbacks


class Present:
    """Who is connected, and what they were sent."""

    def __init__(self, callbacks: Callbacks) -> None:
        self.callbacks = callbacks
        self.executors: list[int] = []
        self.sent: list[Any] = []
        self.sent_to: list[int] = []

    def connected(self, kind: Kind) -> list[int]:
        return self.executors if kind == "job_executor" else []

    def send(self, key: tuple[str, int], message: Any) -> None:
        self.sent.append(message)
        self.sent_to.append(key[1])

    def close(self, reason: str) -> None:
        """Nobody is connected."""

    def come(self, *seats: int) -> None:
        self.executors = list(seats or (0,))
        for seat in self.executors:
            self.callbacks.on_connected(("job_executor", seat))

    def go(self) -> None:
        self.executors = []
        self.callbacks.on_lost(("job_executor", 0), "it is gone")


class Stage:
    """A front door and its clock."""

    def __init__(self, predictor: LengthPredictor | None = None) -> None:
        self.now_s = 0.0
        settings = GatewaySettings((fake_spec(),), 4, absence_s=30.0, report_delay_s=0.5)
        self.gateway = LiveGateway(settings, predictor, lambda rows: None, lambda: self.now_s)
        self.gateway.open(self._peers)  # type: ignore[arg-type]

    def _peers(self, callbacks: Callbacks) -> Present:
        self.peers = Present(callbacks)
        return self.peers

    async def at(self, now_s: float) -> None:
        """Let what is due by then happen."""
        self.now_s = now_s
        for _ in range(3):
            await asyncio.sleep(0)


def staged(body: Callable[[Stage], Awaitable[None]], predictor: LengthPredictor | None = None) -> None:
    """Run a test's body in an event loop whose timers go by the stage's clock."""

    async def whole() -> None:
        stage = Stage(predictor)
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


def test_job_executors_take_turns_and_each_hears_what_became_of_its_requests() -> None:
    @staged
    async def _(stage: Stage) -> None:
        stage.peers.come(0, 1)
        for _ in range(3):
            stage.gateway.generate(GenerateRequest((1, 2, 3), SamplingParams(2), 0.0))
        assert stage.peers.sent_to == [0, 1, 0]
        stage.peers.callbacks.on_message(("job_executor", 1), Answer(1, 1, "prefill", None, reject="full"))
        assert stage.peers.sent_to == [0, 1, 0, 1]
        assert [event.request_id for event in stage.peers.sent[-1].events] == [1]


def test_a_request_stays_with_its_job_executor_while_that_one_is_there() -> None:
    @staged
    async def _(stage: Stage) -> None:
        stage.peers.come(0, 1)
        stage.gateway.generate(GenerateRequest((1, 2, 3), SamplingParams(2), 0.0))
        stage.peers.callbacks.on_message(("job_executor", 0), Answer(0, 1, "prefill", Dispatch(0)))
        stage.peers.callbacks.on_lost(("task_executor", 0), "it is gone")
        asked = [seat for seat, said in zip(stage.peers.sent_to, stage.peers.sent, strict=True) if type(said) is Ask]
        assert asked == [0, 0]
        stage.peers.executors = [1]
        stage.peers.callbacks.on_lost(("job_executor", 0), "it is gone")
        assert (stage.peers.sent_to[-1], type(stage.peers.sent[-1])) == (1, Ask)


def test_a_predictor_learns_how_long_answers_were_once_the_report_delay_has_passed() -> None:
    predictor = PolicySpec.parse("mean_learned:prior_tokens=100,prior_requests=1", "prediction").build(0)

    async def body(stage: Stage) -> None:
        stage.peers.come()

        def asked() -> int | None:
            stage.gateway.generate(GenerateRequest((1, 2, 3), SamplingParams(2), stage.now_s))
            predicted: int | None = stage.peers.sent[-1].request.predicted_output_tokens
            return predicted

        assert asked() == 100
        stage.peers.callbacks.on_message(("job_executor", 0), Answer(0, 1, "prefill", Dispatch(0)))
        tokens = Tokens(0, 1, 0, (SampledToken(0, 5), SampledToken(0, 6)), "length")
        stage.peers.callbacks.on_message(("task_executor", 0), Progress(0.0, (tokens,)))
        await stage.at(0.4)
        assert asked() == 100
        await stage.at(0.6)
        assert asked() == 51

    staged(body, predictor)
