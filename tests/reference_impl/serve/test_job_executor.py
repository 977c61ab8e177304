"""Decisions: what a job executor knows when it asks its policy, and when it asks again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from policies.api import (
    ClusterView,
    Dispatch,
    InstanceView,
    Phase,
    PolicyEvent,
    PolicyKind,
    Reject,
    RequestView,
    Role,
)
from policies.contracts.fakes import FakeEstimate
from reference_impl.serve.channel import Channel
from reference_impl.serve.job_executor import ExecutorSettings, JobExecutor
from reference_impl.serve.messages import Answer, Ask, Hello, Member, Members, News, Withdraw
from reference_impl.serve.peers import Callbacks


@dataclass
class Scripted:
    """Sends a request to the instance with free blocks, and leaves it queued where there is none."""

    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "scripted"
    rng: random.Random = field(init=False, repr=False)
    seen: list[tuple[int, tuple[InstanceView, ...], float]] = field(default_factory=list)
    events: list[PolicyEvent] = field(default_factory=list)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch | Reject | None:
        self.seen.append((request.request_id, tuple(cluster.instances), cluster.now_s))
        if request.request_id == 99:
            return Reject("not you")
        free = [view for view in cluster.instances if view.free_blocks]
        return Dispatch(free[0].instance_id) if free else None

    def observe(self, event: PolicyEvent) -> None:
        self.events.append(event)


class Line(Channel):
    """A front door's connection that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Any] = []

    def send(self, message: tuple[Any, ...]) -> bool:
        self.sent.append(message)
        return True


class NoPeers:
    """The instances speak when the test lets them."""

    def __init__(self, callbacks: Callbacks) -> None:
        self.callbacks = callbacks

    def update(self, members: Any) -> None:
        """Nobody connects."""

    def close(self, reason: str) -> None:
        """Nobody is connected."""


class Stage:
    """A job executor, one front door, and instances."""

    def __init__(self, settings: ExecutorSettings | None = None) -> None:
        self.now_s = 0.0
        self.policy = Scripted()
        self.executor = JobExecutor(self.policy, FakeEstimate(), settings or ExecutorSettings(), lambda: self.now_s)
        self.executor.open(self._peers)  # type: ignore[arg-type]
        self.line = Line()
        self.executor.accept(self.line, Hello("front_door", 0))

    def _peers(self, callbacks: Callbacks) -> NoPeers:
        self.callbacks = callbacks
        return NoPeers(callbacks)

    def join(self, *roles: Role) -> None:
        found = tuple(Member("task_executor", seat, 1, "unix:/x", "ready", role, 1) for seat, role in enumerate(roles))
        self.executor.members(Members(found))

    def report(self, seat: int, free_blocks: int = 10, role: Role = "colocated", **fields: Any) -> None:
        view = InstanceView(seat, role, "ready", self.now_s, 0, 0, 0, 0, free_blocks, 10, 16)._replace(**fields)
        self.callbacks.on_message(("task_executor", seat), News(view))

    def ask(self, request_id: int, phase: Phase = "prefill") -> None:
        self.line.on_message(Ask(1, phase, RequestView(request_id, 0.0, 5)))

    @property
    def answers(self) -> list[tuple[int, Any]]:
        found = [message for message in self.line.sent if isinstance(message, Answer)]
        return [(a.request_id, a.dispatch.instance_id if a.dispatch else a.reject or a.failure) for a in found]


def staged(settings: ExecutorSettings | None = None) -> Callable[[Callable[[Stage], Awaitable[None]]], None]:
    """Run a test's body in an event loop, with a stage."""

    def run(body: Callable[[Stage], Awaitable[None]]) -> None:
        async def whole() -> None:
            stage = Stage(settings)
            try:
                await body(stage)
            finally:
                stage.executor.close("over")

        asyncio.run(whole())

    return run


def test_a_decision_is_answered() -> None:
    @staged()
    async def _(stage: Stage) -> None:
        stage.join("colocated", "colocated")
        stage.report(0, free_blocks=0)
        stage.report(1)
        stage.ask(1)
        stage.ask(99)
        assert stage.answers == [(1, 1), (99, "not you")]


def test_what_is_left_queued_is_offered_again_in_order_when_an_instance_reports() -> None:
    @staged()
    async def _(stage: Stage) -> None:
        stage.join("colocated")
        stage.report(0, free_blocks=0)
        for request_id in (1, 2, 3):
            stage.ask(request_id)
        assert (stage.answers, stage.executor.queued) == ([], 3)
        stage.report(0)
        assert stage.answers == [(1, 0), (2, 0), (3, 0)]


def test_hand_overs_go_first() -> None:
    @staged()
    async def _(stage: Stage) -> None:
        stage.join("prefill", "decode")
        stage.ask(1)
        stage.ask(2, "decode")
        stage.report(0, role="prefill", free_blocks=0)
        stage.report(1, role="decode", free_blocks=0)
        assert stage.answers == []
        stage.policy.seen.clear()
        stage.report(1, role="decode")
        stage.report(0, role="prefill")
        assert stage.answers == [(2, 1), (1, 0)]


def test_what_was_withdrawn_is_not_answered() -> None:
    @staged()
    async def _(stage: Stage) -> None:
        stage.join("colocated")
        stage.ask(1)
        stage.ask(2)
        stage.line.on_message(Withdraw(1))
        stage.report(0)
        assert stage.answers == [(2, 0)]


def test_the_questions_of_a_front_door_that_left_are_forgotten() -> None:
    @staged()
    async def _(stage: Stage) -> None:
        stage.join("colocated")
        stage.ask(1)
        stage.line.on_close("gone")
        assert stage.executor.queued == 0


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_absence_counts_from_when_the_last_instance_left(phase: Phase) -> None:
    role: Role = "colocated" if phase == "prefill" else "decode"

    @staged(ExecutorSettings(absence_s=30.0))
    async def _(stage: Stage) -> None:
        stage.join(role)
        stage.report(0, free_blocks=0, role=role)
        stage.ask(1, phase)
        stage.now_s = 40.0
        stage.callbacks.on_lost(("task_executor", 0), "it restarts")
        stage.now_s = 42.0
        stage.executor._look_for_absence()
        assert (stage.answers, stage.executor.queued) == ([], 1)
        stage.report(0, role=role)
        assert stage.answers == [(1, 0)]
        stage.callbacks.on_lost(("task_executor", 0), "it restarts")
        stage.ask(2, phase)
        stage.now_s = 71.9
        stage.executor._look_for_absence()
        assert stage.executor.queued == 1
        stage.now_s = 72.0
        stage.executor._look_for_absence()
        assert stage.answers[1:] == [(2, f"no instance for its {phase} has been ready for 30 s")]


def test_a_request_waits_its_full_time_where_no_instance_has_been_there_for_long() -> None:
    @staged(ExecutorSettings(absence_s=30.0))
    async def _(stage: Stage) -> None:
        stage.now_s = 100.0
        stage.ask(1)
        stage.now_s = 129.0
        stage.executor._look_for_absence()
        assert stage.executor.queued == 1


@pytest.mark.parametrize("how", ["lost", "left", "failed", "draining"])
def test_an_instance_that_is_not_there_is_not_shown(how: str) -> None:
    @staged()
    async def _(stage: Stage) -> None:
        stage.join("colocated", "colocated")
        stage.report(0)
        stage.report(1)
        if how == "lost":
            stage.callbacks.on_lost(("task_executor", 0), "its process died")
        elif how == "failed":
            stage.report(0, state="failed")
        elif how == "left":
            stage.executor.members(Members((Member("task_executor", 1, 1, "x", "ready", "colocated", 1),)))
        else:
            states = [("draining", 0), ("ready", 1)]
            found = tuple(Member("task_executor", seat, 1, "x", state, "colocated", 1) for state, seat in states)  # type: ignore[arg-type]
            stage.executor.members(Members(found))
        stage.ask(1)
        assert stage.answers == [(1, 1)]


def test_an_instance_that_has_not_reported_is_not_shown() -> None:
    @staged()
    async def _(stage: Stage) -> None:
        stage.join("colocated", "colocated")
        stage.report(1)
        stage.ask(1)
        assert [view.instance_id for view in stage.policy.seen[0][1]] == [1]


def test_a_delayed_report_is_not_known_before_its_time() -> None:
    @staged(ExecutorSettings(report_delay_s=1.0))
    async def _(stage: Stage) -> None:
        stage.join("colocated", "colocated")
        stage.report(0, free_blocks=7)
        stage.report(1, free_blocks=8)
        stage.now_s = 5.0
        stage.report(0, free_blocks=1)
        stage.now_s = 5.9
        stage.ask(1)
        stage.callbacks.on_lost(("task_executor", 1), "gone")  # members change: that makes nobody see the future
        stage.ask(2)
        stage.now_s = 6.0
        stage.ask(3)
        assert [seen[1][0].free_blocks for seen in stage.policy.seen] == [7, 7, 1]


def test_what_is_left_queued_is_offered_again_when_a_delayed_report_becomes_known() -> None:
    @staged(ExecutorSettings(report_delay_s=0.02))
    async def _(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        stage.executor._clock = lambda: loop.time() - start_s
        stage.join("colocated")
        stage.report(0, free_blocks=0)
        stage.now_s = 0.01
        stage.report(0)
        stage.ask(1)
        assert stage.answers == []
        async with asyncio.timeout(5):
            while not stage.answers:
                await asyncio.sleep(0.001)
        assert stage.answers == [(1, 0)]


def test_an_observing_policy_is_told_what_happened() -> None:
    @staged()
    async def _(stage: Stage) -> None:
        stage.join("colocated")
        stage.report(0)
        finished = PolicyEvent("finished", 0.0, 7, 0, 3)
        rejected = PolicyEvent("rejected", 0.0, 8, None, 0)
        stage.ask(7)
        stage.ask(8)
        stage.callbacks.on_message(("task_executor", 0), News(None, (finished,)))
        stage.line.on_message(News(None, (rejected,)))
        stage.ask(1)
        assert stage.policy.events == [finished, rejected]


def test_what_becomes_of_the_requests_of_other_job_executors_is_not_told() -> None:
    @staged()
    async def _(stage: Stage) -> None:
        stage.join("colocated")
        stage.report(0)
        stage.ask(1)
        others = PolicyEvent("finished", 0.0, 2, 0, 3)
        first, last = PolicyEvent("first_token", 0.0, 1, 0, 1), PolicyEvent("finished", 0.0, 1, 0, 3)
        stage.callbacks.on_message(("task_executor", 0), News(None, (others, first, last, last)))
        stage.ask(3)
        assert stage.policy.events == [first, last]
