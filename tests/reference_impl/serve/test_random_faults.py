"""Seeded random faults at every seam of a deployment at once; at the end each request has its tokens, or one error."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from policies.api import Role
from reference_impl.engine.api import EngineError
from reference_impl.engine.post import HandoverSettings
from reference_impl.engine.task_executor import TaskSettings
from reference_impl.engine.testing import Faults
from reference_impl.metrics import per_request, read, summarise
from reference_impl.serve.collect import collect

FAULTS_EACH = 15
SEEDS = 14
_WAVES = 40
FLEETS: list[tuple[Role, ...]] = [
    ("colocated", "colocated"),
    ("prefill", "decode"),
    ("semi_pd", "colocated"),
    ("prefill", "decode", "colocated", "decode"),
]
Granularity = Literal["request", "layer"]


def settings(seed: int) -> TaskSettings:
    granularity: Granularity = "layer" if seed % 3 == 2 else "request"
    handover = HandoverSettings("tcp" if seed % 2 else "shm", granularity, timeout_s=0.2)
    return TaskSettings(plan_ahead=seed % 2 == 0, stall_timeout_s=0.3, handover=handover)


async def replace_someone(bench: Any, rng: random.Random) -> str:
    """Kill a process, and start another one in its place."""
    loopback = bench.loopback
    who = rng.choice(["manager", "job executor", "task executor"])
    if who == "manager":
        await loopback.manager.kill()
        await loopback.start_manager()
    elif who == "job executor":
        await loopback.job_executors.pop(rng.randrange(len(loopback.job_executors))).kill()
        await loopback.start_job_executor()
    else:
        place = rng.randrange(len(loopback.task_executors))
        killed = loopback.task_executors.pop(place)
        role = killed.node.server.executor.view().role
        await killed.kill()
        while True:
            with contextlib.suppress(EngineError):  # Ray Serve tries again, too
                await loopback.start_task_executor(role)
                break
    return who


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_fails_each_request_gets_its_tokens_or_one_error(deploy: Any, seed: int, folder: Path) -> None:
    rng, faults = random.Random(seed), Faults(seed, rate=0.0)
    ends: Counter[str] = Counter()

    async def check() -> None:
        roles = FLEETS[seed % len(FLEETS)]
        fields = {"job_executors": 2, "task": settings(seed), "max_failures": 6}
        async with deploy(*roles, faults=faults, iteration_s=0.001, **fields) as bench:
            faults.begin(rate=0.03, limit=FAULTS_EACH)
            for wave in range(_WAVES):
                load = asyncio.create_task(bench.ask_many(10))
                if wave % 3 == 1:
                    ends[await replace_someone(bench, rng)] += 1
                for answered in await load:
                    answered.check()
                    ends["finished" if answered.error is None else "one error"] += 1
                if not faults.left:
                    break
            assert not faults.left, f"only {FAULTS_EACH - faults.left} faults were made"
            await bench.until_ready()
            for answered in await bench.ask_many(6):
                answered.check()
                assert answered.error is None
            await bench.check_nothing_is_held()
            assert (await bench.loopback.drain(2.0)).drained

    asyncio.run(check())
    assert ends["finished"] > ends["one error"]
    collect(folder / "rows.spool", folder / "events.parquet", folder / "requests.jsonl", {"schema_version": 1})
    run = read(folder / "events.parquet")
    assert "itl_mean_ms" in summarise(run), "the rows of tokens and of ends contradict each other"
    table = per_request(run)
    assert table.finished.sum() == ends["finished"] + 6
    assert table.rejected.sum() == ends["one error"]
