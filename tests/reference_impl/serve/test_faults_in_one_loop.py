"""What fails under a deployment's requests: each finishes elsewhere or gets one error, and nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from policies.api import BatchPlan, ClusterView, Dispatch, FleetView, LaneView, PolicyKind, RequestView, Role, ScalePlan
from policies.batch.prefill_first import PrefillFirst
from reference_impl.metrics import read, summarise
from reference_impl.serve import spool, task_server
from reference_impl.serve.collect import collect

METADATA = {"schema_version": 1, "instances": []}


def collected(folder: Path) -> dict[str, float]:
    collect(folder / "rows.spool", folder / "events.parquet", folder / "requests.jsonl", METADATA)
    return summarise(read(folder / "events.parquet"))


async def busy(bench: Any, count: int) -> asyncio.Task[Any]:
    """Requests under way, each with a few tokens at least."""
    task = asyncio.create_task(bench.ask_many(count))
    await bench.until(lambda: bench.loopback.gateway.beat().in_flight >= count)
    await bench.until(
        lambda: sum(len(host.node.server.executor.log.run) for host in bench.loopback.task_executors) >= 0
    )
    await asyncio.sleep(0.02)
    return task


async def served_after(bench: Any) -> None:
    """Capacity is back, and everything that was taken was given back."""
    await bench.until_ready()
    for answered in await bench.ask_many(4):
        answered.check()
        assert answered.error is None
    await bench.check_nothing_is_held()


@pytest.mark.parametrize("roles", [("colocated", "colocated"), ("prefill", "decode")], ids="-".join)
@pytest.mark.parametrize("place", [0, 1])
def test_a_killed_instance_is_replaced_under_load(
    deploy: Any, roles: tuple[Role, ...], place: int, folder: Path
) -> None:
    async def check() -> None:
        async with deploy(*roles, iteration_s=0.005) as bench:
            load = await busy(bench, 16)
            await bench.loopback.task_executors.pop(place).kill()
            await bench.loopback.start_task_executor(roles[place])
            for answered in await load:
                answered.check()
                assert answered.error is None
            await served_after(bench)
            await bench.loopback.drain(2.0)

    asyncio.run(check())
    metrics = collected(folder)
    assert metrics["completed"] == metrics["arrived"] == 20
    assert "itl_mean_ms" in metrics


def test_kv_that_its_source_gave_up_when_a_connection_broke_is_not_decoded(
    deploy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both instances live: a hand-over waits for blocks while what it would pull becomes other requests'."""
    monkeypatch.setattr(task_server, "_PARTING_S", 0.0)

    async def check() -> None:
        async with deploy("prefill", "decode", instance={"kv_blocks": 12}, iteration_s=0.01) as bench:
            servers = {
                host.node.server.executor.view().role: host.node.server for host in bench.loopback.task_executors
            }
            prefill, decode = servers["prefill"], servers["decode"]
            load = [asyncio.create_task(bench.ask(range(20), 24))]
            await bench.until(lambda: decode.executor.view().running_requests == 1)
            load.append(asyncio.create_task(bench.ask(range(100, 120), 8)))
            await bench.until(lambda: decode.executor.view().waiting_requests == 1)
            (channel,) = prefill._front_doors
            channel._break()
            load += [asyncio.create_task(bench.ask(range(start, start + 36), 4)) for start in (200, 300)]
            for task in load:
                answered = await task
                answered.check()
                assert answered.error is None
            await bench.check_nothing_is_held()

    asyncio.run(check())


def test_a_replaced_instance_keeps_its_id(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("prefill", "decode") as bench:
            await bench.loopback.task_executors.pop(0).kill()
            await bench.loopback.start_task_executor("prefill")
            assert [host.node.server.executor.view().instance_id for host in bench.loopback.task_executors] == [1, 0]

    asyncio.run(check())


def test_requests_wait_for_an_instance_that_comes_back(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("colocated", iteration_s=0.005) as bench:
            load = await busy(bench, 6)
            await bench.loopback.task_executors.pop(0).kill()
            gateway = bench.loopback.gateway
            await bench.until(lambda: gateway.stats().queued_requests == gateway.beat().in_flight > 0)
            await bench.loopback.start_task_executor("colocated")
            for answered in await load:
                answered.check()
                assert answered.error is None

    asyncio.run(check())


def test_without_any_instance_there_is_one_error_after_a_while(deploy: Any) -> None:
    from reference_impl.serve.spec import Timing

    async def check() -> None:
        timing = Timing(beat_s=0.05, rejoin_s=0.1, absence_s=0.2)
        async with deploy("colocated", timing=timing) as bench:
            await bench.loopback.task_executors.pop(0).kill()
            await bench.until(lambda: not bench.loopback.gateway._peers.connected("task_executor"))
            answered = await bench.ask(range(8))
            assert answered.error.status == 503
            assert "no instance for its prefill has been ready for 0.2 s" in answered.error.message

    asyncio.run(check())


def test_a_killed_job_executor_is_replaced_under_load(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("prefill", "decode", iteration_s=0.005) as bench:
            load = await busy(bench, 12)
            await bench.loopback.job_executors.pop(0).kill()
            await bench.loopback.start_job_executor()
            for answered in await load:
                answered.check()
                assert answered.error is None
            await served_after(bench)

    asyncio.run(check())


def test_without_any_job_executor_there_is_one_error_after_a_while(deploy: Any) -> None:
    from reference_impl.serve.spec import Timing

    async def check() -> None:
        async with deploy("colocated", timing=Timing(beat_s=0.05, rejoin_s=0.1, absence_s=0.2)) as bench:
            await bench.loopback.job_executors.pop(0).kill()
            answered = await bench.ask(range(8))
            answered.check()
            assert answered.error.status == 503
            assert "no job executor" in answered.error.message

    asyncio.run(check())


def test_the_requests_of_a_killed_front_door_are_cancelled(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("prefill", "decode", iteration_s=0.005, front_doors=2) as bench:
            lost = asyncio.create_task(bench.ask_many(8, front_door=0))
            kept = asyncio.create_task(bench.ask_many(8, front_door=1))
            await bench.until(lambda: all(host.node.server.in_flight > 8 for host in bench.loopback.task_executors[:1]))
            await bench.loopback.front_doors.pop(0).kill()
            for answered in await kept:
                answered.check()
                assert answered.error is None
            await bench.check_nothing_is_held()
            host = await bench.loopback.start_front_door()
            assert host.node.gateway.beat().next_request_id >= 1 << 16, "ids of the killed one are not given out again"
            lost.cancel()

    asyncio.run(check())


def test_the_cluster_manager_is_replaced_under_load(deploy: Any, folder: Path) -> None:
    async def check() -> None:
        async with deploy("colocated", "colocated", iteration_s=0.005) as bench:
            load = await busy(bench, 16)
            await bench.loopback.manager.kill()
            await bench.until(lambda: bench.loopback.gateway.beat().in_flight < 16, "served without a manager")
            await bench.loopback.start_manager()
            for answered in await load:
                answered.check()
                assert answered.error is None
                assert answered.finish == "length"
            await served_after(bench)
            assert bench.loopback.gateway.stats().redispatched_total == 0
            await bench.loopback.drain(2.0)

    asyncio.run(check())
    assert collected(folder)["completed"] == 20


def test_everybody_keeps_its_place_when_the_cluster_manager_is_replaced(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("prefill", "decode") as bench:
            await bench.loopback.manager.kill()
            await bench.loopback.start_manager()
            registry = bench.loopback.manager.node.manager.registry
            await bench.until(lambda: len(registry.members()) == 4)
            await bench.loopback.task_executors.pop(0).kill()
            await bench.loopback.start_task_executor("prefill")
            await served_after(bench)

    asyncio.run(check())


def test_an_instance_that_falls_silent_is_given_up(deploy: Any) -> None:
    from reference_impl.serve.spec import Timing

    async def check() -> None:
        timing = Timing(beat_s=0.05, silence_s=0.3, rejoin_s=0.1, patience_s=0.3)
        async with deploy("colocated", "colocated", iteration_s=0.005, timing=timing) as bench:
            load = await busy(bench, 10)
            silent = bench.loopback.task_executors.pop(0)
            for channel in silent.network._channels:
                channel.hold(3.0)
            for answered in await load:
                answered.check()
                assert answered.error is None
            await silent.kill()
            await bench.loopback.start_task_executor("colocated")
            await served_after(bench)

    asyncio.run(check())


def test_a_full_disk_ends_the_log_and_not_the_service(
    deploy: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: int, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def check() -> None:
        async with deploy("colocated") as bench:
            await bench.ask_many(4)
            monkeypatch.setattr(spool, "_write_all", full)
            for answered in await bench.ask_many(8):
                answered.check()
                assert answered.error is None
            await bench.until(lambda: bench.loopback.gateway.stats().log_error == "No space left on device")
            status = await bench.loopback.drain(2.0)
            assert (status.drained, status.log_error) == (True, "No space left on device")

    asyncio.run(check())
    said = [record.message for record in caplog.records if "event log ends here" in record.message]
    assert len(said) == 1
    assert "rows.spool: No space left on device; serving goes on without it" in said[0]


# --------------------------------------------------------------------------------------------------------- policies


@dataclass
class PickyDispatch:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "picky"
    rng: random.Random = field(init=False, repr=False)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Any:
        if request.prompt_tokens == 5:
            raise KeyError("five")
        if request.prompt_tokens == 6:
            return Dispatch(99)
        return Dispatch(cluster.instances[0].instance_id)


@dataclass
class PickyBatch:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "picky"
    rng: random.Random = field(init=False, repr=False)

    def plan(self, lane: LaneView) -> BatchPlan:
        raise KeyError("no plan")


@dataclass
class MoodyBatch(PrefillFirst):
    """Raises what is left of its moods."""

    moods: ClassVar[list[Exception]] = []

    def plan(self, lane: LaneView) -> BatchPlan:
        if self.moods:
            raise self.moods.pop()
        return super().plan(lane)


@dataclass
class TwoPlease:
    kind: ClassVar[PolicyKind] = "scaling"
    name: ClassVar[str] = "two_please"
    interval_s: ClassVar[float | None] = 0.05
    rng: random.Random = field(init=False, repr=False)
    fleets: ClassVar[list[FleetView]] = []

    def scale(self, fleet: FleetView) -> ScalePlan:
        self.fleets.append(fleet)
        return ScalePlan({"colocated": 2}, reason="it is busy")


class Given:
    """A policy factory of one class, as a PolicySpec is."""

    def __init__(self, policy: type[Any]) -> None:
        self._policy = policy

    def build(self, seed: int) -> Any:
        policy = self._policy()
        policy.rng = random.Random(seed)
        return policy

    __call__ = build


def test_a_dispatch_policy_that_fails_costs_only_the_request_that_it_was_asked_about(deploy: Any, folder: Path) -> None:
    from dataclasses import replace

    async def check() -> None:
        async with deploy("colocated") as bench:
            bench.loopback.spec = replace(bench.spec, dispatch=Given(PickyDispatch))
            await bench.loopback.job_executors.pop(0).kill()
            await bench.loopback.start_job_executor()
            raised, wrong, good = await asyncio.gather(*(bench.ask(range(size)) for size in (5, 6, 7)))
            assert raised.error.status == wrong.error.status == 503
            assert "policy 'picky' raised KeyError" in raised.error.message
            assert "allowed: one of the instances [0]" in wrong.error.message
            assert good.error is None
            await bench.check_nothing_is_held()

    asyncio.run(check())


def test_a_batch_policy_that_fails_everywhere_gives_one_error_that_names_it(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("colocated", "colocated", batch=Given(PickyBatch), max_failures=1) as bench:
            answered = await bench.ask(range(8))
            assert (answered.error.status, answered.error.code) == (503, "instance_failed")
            assert answered.error.message.startswith("gave up after 2 failures")
            assert "policy 'picky' raised KeyError" in answered.error.message
            await bench.until_ready()
            assert (await bench.ask(range(8))).error is not None

    asyncio.run(check())


def test_a_batch_policy_that_fails_once_costs_no_request(deploy: Any) -> None:
    async def check() -> None:
        MoodyBatch.moods = [KeyError("not today")]
        async with deploy("colocated", "colocated", batch=Given(MoodyBatch)) as bench:
            for answered in await bench.ask_many(8):
                answered.check()
                assert answered.error is None
            assert not MoodyBatch.moods

    asyncio.run(check())


def test_the_scaling_policy_is_shown_the_fleet_and_its_word_is_written_down(deploy: Any, folder: Path) -> None:
    async def check() -> None:
        TwoPlease.fleets.clear()
        async with deploy("colocated", scaling=Given(TwoPlease)) as bench:
            await bench.ask_many(4)
            await bench.until(lambda: bench.spec.targets_file.exists())
            assert bench.spec.targets_file.read_text() == '{"colocated": 2}'
            await bench.loopback.start_task_executor("colocated")
            await bench.until(lambda: len(TwoPlease.fleets[-1].instances) == 2)
            assert TwoPlease.fleets[-1].configured == {"colocated": 1}
            assert any(fleet.arrival_rate_rps > 0 for fleet in TwoPlease.fleets)
            assert {view.instance_id for view in TwoPlease.fleets[-1].instances} == {0, 1}

    asyncio.run(check())
