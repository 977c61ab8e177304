"""What the cluster manager remembers, forgives and says of itself; what it does for a deployment is tested with one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from policies.registry import PolicySpec
from reference_impl.serve.channel import Address, Channel, Network
from reference_impl.serve.cluster_manager import ClusterManager, ManagerSettings
from reference_impl.serve.messages import Beat, Hello, Join, Kind, Members, Welcome


class Clock:
    """Time that a test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Line:
    """A member's end of its line."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.lost = asyncio.Event()

    async def hear(self, kind: type[Any]) -> Any:
        """The next message of a kind."""
        async with asyncio.timeout(5):
            while not isinstance(message := await self.heard.get(), kind):
                pass
        return message


class Bench:
    """Cluster managers at one address, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.killed: list[int] = []
        self.network = Network("secret")

    def manager(self, front_doors: int = 2) -> ClusterManager:
        settings = ManagerSettings(
            Address("unix", str(self.folder / "m.sock")), front_doors, 1, ("colocated",), self.folder / "m.json", None
        )
        scaling = PolicySpec.parse("fixed", "scaling").build(0)
        return ClusterManager(settings, self.network, scaling, self.clock, self.killed.append, lambda _: None)

    async def join(self, kind: Kind, pid: int = 7) -> tuple[Line, Welcome]:
        """A new process of that kind."""
        found: list[Line] = []
        channel = await self.network.connect(
            Address("unix", str(self.folder / "m.sock")),
            Hello(kind, -1),
            lambda message: found[0].heard.put_nowait(message),
            lambda _: found[0].lost.set(),
        )
        found.append(Line(channel))
        channel.send(Join(kind, -1, 0, "", pid, "colocated" if kind == "task_executor" else None))
        return found[0], await found[0].hear(Welcome)


@pytest.fixture
def bench(folder: Path) -> Bench:
    return Bench(folder)


async def until(fact: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not fact():
            await asyncio.sleep(0.002)


async def ticks_after(bench: Bench, manager: ClusterManager, seconds: float) -> None:
    """So much time passes until it looks again."""
    bench.clock.now_s += seconds
    await until(lambda: manager._ticked_s == bench.clock.now_s)


async def replaced(bench: Bench, manager: ClusterManager, line: Line) -> Welcome:
    """Kill a front door; what its replacement is told."""
    gone = len(manager.registry.entries("front_door")) - 1
    line.channel.cut()
    await until(lambda: manager.registry.entries("front_door")[0].away_since_s is not None)
    bench.clock.now_s += 1.5
    await until(lambda: len(manager.registry.entries("front_door")) == gone)
    return (await bench.join("front_door"))[1]


@pytest.mark.parametrize("told", [5, 3_000_001])
def test_a_replaced_front_door_begins_beyond_all_ids_that_its_predecessor_told_of(bench: Bench, told: int) -> None:
    async def check() -> None:
        manager = bench.manager()
        await manager.start()
        first, welcome = await bench.join("front_door")
        _, other = await bench.join("front_door", 8)
        assert (welcome.first_request_id, other.first_request_id) == (0, 1)
        first.channel.send(Beat("ready", next_request_id=told - told % 2))
        await until(lambda: manager.registry.entries("front_door")[0].beat.next_request_id)
        again = await replaced(bench, manager, first)
        assert again.seat == 0
        assert again.first_request_id >= told + 2 * (1 << 16), "and beyond those since its last word"
        assert again.first_request_id % 2 == 0, "the ids of the other front door are odd"
        await manager.stop("the test is over")

    asyncio.run(check())


def test_ids_are_remembered_where_the_cluster_manager_is_replaced_as_well(bench: Bench) -> None:
    async def check() -> None:
        manager = bench.manager(front_doors=1)
        await manager.start()
        first, _ = await bench.join("front_door")
        first.channel.send(Beat("ready", next_request_id=1_000_000))
        await until(lambda: manager.registry.entries("front_door")[0].beat.next_request_id)
        await manager.stop("it is killed, and the front door with it")
        again = bench.manager(front_doors=1)
        await again.start()
        joining = asyncio.create_task(bench.join("front_door"))
        await until(lambda: again._joining)
        bench.clock.now_s += 1.5
        assert (await joining)[1].first_request_id >= 1_000_000 + (1 << 16)
        await again.stop("the test is over")

    asyncio.run(check())


def test_nobody_is_killed_for_what_a_frozen_cluster_manager_did_not_hear(bench: Bench) -> None:
    async def check() -> None:
        manager = bench.manager()
        await manager.start()
        await bench.join("job_executor", pid=1234)
        await ticks_after(bench, manager, 60.0)
        assert (bench.killed, len(manager.registry.entries())) == ([], 1)
        for _ in range(12):  # from now on silence counts
            await ticks_after(bench, manager, 1.0)
        assert bench.killed == [1234]
        await manager.stop("the test is over")

    asyncio.run(check())


def test_one_whose_ticking_ended_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        manager = bench.manager()
        assert not manager.running
        await manager.start()
        assert manager.running
        monkeypatch.setattr(manager.registry, "overdue", lambda _: 1 // 0)
        await until(lambda: not manager.running)
        await manager.stop("the test is over")

    asyncio.run(check())
    assert "the cluster manager cannot go on" in caplog.text


def test_serve_is_told_to_replace_it() -> None:
    replica: Any = pytest.importorskip("reference_impl.serve.deployment").Manager
    asyncio.run(replica.check_health(SimpleNamespace(_node=SimpleNamespace(running=True))))
    with pytest.raises(RuntimeError, match="the cluster manager has ended"):
        asyncio.run(replica.check_health(SimpleNamespace(_node=SimpleNamespace(running=False))))


def test_what_a_member_could_not_record_outlasts_it(bench: Bench) -> None:
    async def check() -> None:
        manager = bench.manager()
        await manager.start()
        line, _ = await bench.join("job_executor")
        line.channel.send(Beat("ready", record_error="decisions are recorded no further: No space left on device"))
        said = "job executor 0: decisions are recorded no further: No space left on device"
        while (await line.hear(Members)).log_error != said:
            pass
        line.channel.send(Beat("ready"))
        await until(lambda: manager.registry.entries()[0].beat.record_error == "")
        assert manager._status().log_error == said
        await manager.stop("the test is over")

    asyncio.run(check())
