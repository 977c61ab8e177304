"""Colocated instances of a deployment that hand over to one another, and have no room for it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policies.api import ClusterView, Dispatch, RequestView
from reference_impl.engine.post import HandoverSettings
from reference_impl.engine.task_executor import TaskSettings
from reference_impl.metrics import per_request, read, token_times
from reference_impl.serve.collect import collect

METADATA = {"schema_version": 1, "instances": []}
OFTEN_S = 0.2
"""An instance looks at itself four times in this time."""


@dataclass
class Crosswise:
    """Requests in turn to an instance, and from there to the next one."""

    instances: int
    kind: str = "dispatch"
    name: str = "crosswise"
    rng: random.Random | None = None

    def build(self, seed: int) -> Any:
        return self

    __call__ = build

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        first = request.request_id % self.instances
        return Dispatch(first, (first + 1) % self.instances)


def prompts_take_long(batch: Any) -> float:
    return 0.03 if batch.chunks else 0.001


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_of_two_hand_overs_that_wait_for_one_another_one_stays(deploy: Any, folder: Path, transport: Any) -> None:
    async def check() -> None:
        options = {
            "task": TaskSettings(stall_timeout_s=OFTEN_S, handover=HandoverSettings(transport)),
            "dispatch": Crosswise(2),
            "instance": {"kv_blocks": 17},
            "iteration_s": prompts_take_long,
        }
        async with deploy("colocated", "colocated", **options) as bench:
            for answered in await asyncio.gather(bench.ask(range(18), 4), bench.ask(range(50), 4)):
                answered.check()
                assert answered.error is None
            assert bench.loopback.gateway.stats().redispatched_total == 0
            await bench.check_nothing_is_held()
            await bench.loopback.drain(2.0)

    asyncio.run(check())
    collect(folder / "rows.spool", folder / "events.parquet", folder / "requests.jsonl", METADATA)
    run = read(folder / "events.parquet")
    assert [len(token_times(run, row)) for row in range(2)] == [4, 4]
    assert [tuple(per_request(run).path(row)) for row in range(2)] == [(0, 1), (1, 1)]


@pytest.mark.parametrize("plan_ahead", [False, True], ids=["plain", "ahead"])
def test_among_many_every_request_gets_its_tokens(deploy: Any, plan_ahead: bool) -> None:
    async def check() -> None:
        options = {
            "task": TaskSettings(stall_timeout_s=OFTEN_S, plan_ahead=plan_ahead),
            "dispatch": Crosswise(3),
            "instance": {"kv_blocks": 17, "max_sequences": 3},
        }
        async with deploy("colocated", "colocated", "colocated", **options) as bench:
            asked = (bench.ask(range(10 + number % 30), 2 + number % 12) for number in range(24))
            for answered in await asyncio.gather(*asked):
                answered.check()
                assert answered.error is None
            await bench.check_nothing_is_held()

    asyncio.run(check())
