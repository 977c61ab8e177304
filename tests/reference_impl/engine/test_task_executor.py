"""A task executor in an event loop: serving, waiting for its workers, losing them, stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from policies.api import BatchPlan
from policies.registry import PolicySpec
from reference_impl.core.instance import Instance
from reference_impl.engine.api import EngineError
from reference_impl.engine.step import Failure, Step
from reference_impl.engine.task_executor import TaskExecutor, TaskSettings
from reference_impl.engine.testing import (
    FakeCrew,
    FakeCrews,
    FakeDoor,
    fake_builder,
    fake_request,
    fake_spec,
    fake_tokens,
)

Make = Callable[..., Any]
Wait = Callable[[Callable[[], bool]], Awaitable[None]]
THREADS = {"iteration_s": 0.002}


def serve(executor: TaskExecutor, act: Callable[[FakeDoor], Coroutine[Any, Any, None]]) -> None:
    """Start the executor, act, stop it."""

    async def whole() -> None:
        door = FakeDoor([executor])
        await executor.start()
        try:
            await act(door)
        finally:
            await executor.stop()

    asyncio.run(whole())


@pytest.mark.parametrize("crews", [{}, THREADS], ids=["in the loop", "threads"])
@pytest.mark.parametrize("plan_ahead", [False, True])
@pytest.mark.parametrize("role", ["colocated", "semi_pd"])
def test_requests_get_their_tokens(executor: Make, prompts: Make, role: str, plan_ahead: bool, crews: Any) -> None:
    drawn = prompts(1, 20)

    async def act(door: FakeDoor) -> None:
        tokens = await door.serve([fake_request(i, prompt, 10) for i, prompt in enumerate(drawn)])
        assert tokens == {i: fake_tokens(prompt, 10) for i, prompt in enumerate(drawn)}
        assert all(job.ends == ["length"] for job in door.jobs.values())
        view = built.view()
        assert (view.running_requests, view.waiting_requests, view.free_blocks) == (0, 0, view.total_blocks)

    built = executor(role, plan_ahead=plan_ahead, crews=crews)
    serve(built, act)


def test_its_view_says_when_it_is_ready(executor: Make) -> None:
    built = executor()
    assert built.view().state == "starting"

    async def act(door: FakeDoor) -> None:
        assert built.view().state == "ready"

    serve(built, act)
    assert built.view().state != "ready"


def test_steps_come_from_callbacks_of_their_own_and_say_when_the_view_has_changed(until: Wait, executor: Make) -> None:
    built = executor()
    steps: list[Step] = []

    async def act(door: FakeDoor) -> None:
        await asyncio.sleep(0)
        built.on_step = steps.append
        steps.clear()
        built.submit(fake_request(0, [1], 3))
        built.submit(fake_request(1, [], 3))
        assert steps == []
        await until(lambda: any(output.finish for step in steps for output in step.outputs))
        assert steps[0].changed
        assert [failure.request_id for step in steps for failure in step.failed] == [1]

    serve(built, act)


def test_rows_of_the_event_log_are_taken_once(executor: Make) -> None:
    built = executor()

    async def act(door: FakeDoor) -> None:
        await door.serve([fake_request(0, [1, 2], 3)])
        rows = built.take_rows()
        assert [len(rows[kind]) for kind in ("admit", "prefilled", "finish", "run")] == [1, 1, 1, 3]
        start_s, end_s = rows["run"][0][5], rows["run"][0][0]
        assert 0 < start_s <= end_s == rows["prefilled"][0][0]
        assert built.take_rows() == {}

    serve(built, act)


@pytest.mark.parametrize("plan_ahead", [False, True])
def test_a_dead_worker_is_replaced_and_its_requests_are_served_again(
    until: Wait, executor: Make, prompts: Make, plan_ahead: bool
) -> None:
    built = executor("semi_pd", plan_ahead=plan_ahead, crews=THREADS)
    drawn = prompts(4, 12)

    async def act(door: FakeDoor) -> None:
        for i, prompt in enumerate(drawn):
            door.submit(fake_request(i, prompt, 30))
        for lane in (0, 1, 1):
            await until(partial(_has_tokens, door, _tokens(door) + 20))
            crew = built.crews[-1]
            crew.kill(lane)
            await until(partial(_has_another, built, crew))
        await door.finished()
        assert {i: tuple(job.tokens) for i, job in door.jobs.items()} == {
            i: fake_tokens(prompt, 30) for i, prompt in enumerate(drawn)
        }
        assert all(job.ends == ["length"] for job in door.jobs.values())

    serve(built, act)


def _tokens(door: FakeDoor) -> int:
    return sum(len(job.tokens) for job in door.jobs.values())


def _has_tokens(door: FakeDoor, count: int) -> bool:
    return _tokens(door) >= count


def _has_another(built: Any, crew: FakeCrew) -> bool:
    return built.crews[-1] is not crew and built.view().state == "ready"


def test_a_worker_that_hangs_is_replaced(executor: Make) -> None:
    hangs = [True]

    def iteration_s(batch: Any) -> float:
        return 60.0 if hangs and hangs.pop() else 0.001

    built = executor(stall_timeout_s=0.1, crews={"iteration_s": iteration_s})

    async def act(door: FakeDoor) -> None:
        tokens = await door.serve([fake_request(0, [3], 5)])
        assert tokens == {0: fake_tokens([3], 5)}
        assert door.jobs[0].tries == 1
        assert len(built.crews) == 2

    serve(built, act)


def test_a_worker_that_is_slow_but_never_idle_does_not_hang(executor: Make) -> None:
    built = executor(stall_timeout_s=0.4, plan_ahead=True, crews={"iteration_s": 0.05})

    async def act(door: FakeDoor) -> None:
        await door.serve([fake_request(0, [3], 20)])
        assert len(built.crews) == 1

    serve(built, act)


def test_no_step_speaks_of_a_request_that_was_cancelled_or_ended(executor: Make, until: Wait) -> None:
    built = executor(crews=THREADS)
    steps: list[Step] = []

    async def act(door: FakeDoor) -> None:
        built.on_step = steps.append
        for i in range(3):
            built.submit(fake_request(i, [], 30))
            built.submit(fake_request(10 + i, [1], 30))
        built.cancel(0, None)
        built.end(1)
        await until(lambda: any(step.failed for step in steps))
        built.cancel(10, "its client left")
        built.end(11)
        spoken_before = len(steps)
        await until(lambda: any(output.finish for step in steps for output in step.outputs))
        assert [failure.request_id for step in steps for failure in step.failed] == [2]
        assert {output.request_id for step in steps[spoken_before:] for output in step.outputs} == {12}

    serve(built, act)


def test_a_worker_that_breaks_down_says_why(until: Wait, executor: Make) -> None:
    def iteration_s(batch: Any) -> float:
        raise EngineError("no memory is left")

    built = executor(crews={"iteration_s": iteration_s})
    failed: list[Failure] = []

    async def act(door: FakeDoor) -> None:
        built.on_step = lambda step: failed.extend(step.failed)
        built.submit(fake_request(0, [3], 5))
        await until(lambda: bool(failed))
        assert "no memory is left" in failed[0].reason
        assert failed[0].retry

    serve(built, act)


def test_what_comes_while_the_workers_start_is_served_then(until: Wait, clock: Callable[[], float], run: str) -> None:
    crews = FakeCrews(clock, run=run)
    gate = asyncio.Event()

    async def start_crew(instance: Instance) -> Any:
        await gate.wait()
        return await crews(instance)

    async def whole() -> None:
        built = TaskExecutor(fake_builder(0, fake_spec()), start_crew, TaskSettings(), clock)
        door = FakeDoor([built])
        starting = asyncio.create_task(built.start())
        await asyncio.sleep(0)
        for i in range(3):
            door.submit(fake_request(i, [i], 4))
        built.cancel(0, "its client left")
        built.end(1)
        gate.set()
        await starting
        await until(lambda: bool(door.jobs[2].ends))
        assert [len(door.jobs[i].tokens) for i in range(3)] == [0, 0, 4]
        await built.stop()

    asyncio.run(whole())


def test_an_instance_whose_workers_do_not_start_says_so_until_it_is_restarted(
    until: Wait, clock: Callable[[], float], run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_impl.engine.task_executor.RETRY_S", 0.0)
    crews = FakeCrews(clock, run=run, iteration_s=0.001)
    broken = False

    async def start_crew(instance: Instance) -> Any:
        if broken:
            raise EngineError("no memory for the pool")
        return await crews(instance)

    async def whole() -> None:
        nonlocal broken
        built = TaskExecutor(fake_builder(0, fake_spec()), start_crew, TaskSettings(), clock)
        door = FakeDoor([built], tries=2)
        await built.start()
        broken = True
        crews.crews[-1].kill(0)
        await until(lambda: built.view().state == "failed")
        assert built.failure is not None
        assert "no memory" in built.failure
        door.submit(fake_request(0, [1], 3))
        await door.finished()
        (end,) = door.jobs[0].ends
        assert isinstance(end, Failure)
        assert "no memory" in end.reason
        broken = False
        await built.restart("asked to")
        assert built.failure is None
        assert (await door.serve([fake_request(1, [1], 3)]))[1] == fake_tokens([1], 3)
        await built.stop()

    asyncio.run(whole())


def test_a_policy_that_raises_fails_its_instance_and_not_its_process(executor: Make) -> None:
    built = executor()

    async def act(door: FakeDoor) -> None:
        await door.serve([fake_request(0, [1], 3)])
        built.instance.lanes[0].batch.plan = lambda lane: BatchPlan(preempt=(5,))
        door.submit(fake_request(1, [1], 3))
        await door.finished()
        (end,) = door.jobs[1].ends
        assert isinstance(end, Failure)
        assert "prefill_first" in end.reason
        assert built.view().state == "failed"
        assert built.failure == end.reason
        await built.restart("a new policy object")
        assert (await door.serve([fake_request(2, [1], 3)]))[2] == fake_tokens([1], 3)

    serve(built, act)


def test_a_bug_of_ours_fails_the_requests_and_starts_the_instance_anew(
    executor: Make, caplog: pytest.LogCaptureFixture
) -> None:
    built = executor()

    async def act(door: FakeDoor) -> None:
        built.instance.record = lambda *_: 1 / 0
        assert (await door.serve([fake_request(0, [1], 3)]))[0] == fake_tokens([1], 3)
        assert door.jobs[0].tries == 1
        assert "ZeroDivisionError" in caplog.text

    serve(built, act)


def test_shares_that_would_have_to_be_enforced_are_refused_and_whole_ones_are_logged(executor: Make) -> None:
    async def whole(partition: str) -> Any:
        built = executor("semi_pd", partition=PolicySpec.parse(partition, "partition"))
        try:
            await built.start()
            return built.take_rows()["partition"]
        finally:
            await built.stop()

    with pytest.raises(EngineError, match="allowed in a live deployment of this version: none"):
        asyncio.run(whole("static_share:prefill_pct=40,decode_pct=60"))
    assert [row[1:] for row in asyncio.run(whole("none"))] == [(1, 100, 100, "initial shares")]


def test_two_who_ask_for_a_restart_get_one(executor: Make) -> None:
    built = executor(crews=THREADS)

    async def act(door: FakeDoor) -> None:
        await asyncio.gather(built.restart("asked to"), built.restart("asked to, too"))
        assert len(built.crews) == 2
        assert (await door.serve([fake_request(0, [1], 3)]))[0] == fake_tokens([1], 3)

    serve(built, act)


def test_stopping_fails_what_is_here(until: Wait, executor: Make) -> None:
    built = executor(crews={"iteration_s": 60.0})
    failed: list[Failure] = []

    async def act(door: FakeDoor) -> None:
        built.on_step = lambda step: failed.extend(step.failed)
        built.submit(fake_request(0, [1], 3))
        await until(lambda: built.view().running_requests == 1)

    serve(built, act)
    assert [(failure.request_id, failure.retry) for failure in failed] == [(0, True)]


def test_an_instance_whose_first_workers_do_not_start_cannot_be_started(clock: Callable[[], float]) -> None:
    async def start_crew(instance: Instance) -> Any:
        raise EngineError("no such model")

    async def whole() -> None:
        built = TaskExecutor(fake_builder(0, fake_spec()), start_crew, TaskSettings(), clock)
        with pytest.raises(EngineError, match="no such model"):
            await built.start()
        await built.stop()

    asyncio.run(whole())
