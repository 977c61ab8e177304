"""The policies of a deployment are the objects of the simulator: shown again what they saw, they decide the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from reference_impl.engine.task_executor import TaskSettings
from reference_impl.recording import replay
from reference_impl.serve.spec import Record

Deploy = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.mark.parametrize(
    ("roles", "dispatch", "batch"),
    [
        (("colocated",) * 3, "prefix_affinity:match_threshold=0.2", "chunked_prefill:chunk_tokens=16"),
        (("colocated",) * 2, "power_of_two", "unified_budget"),
        (("prefill", "decode", "decode"), "random", "prefill_first"),
        (("semi_pd", "semi_pd"), "round_robin", "decode_first"),
    ],
)
@pytest.mark.parametrize("plan_ahead", [False, True], ids=["plain", "ahead"])
def test_a_fresh_policy_decides_what_the_live_one_decided(
    deploy: Deploy, tmp_path: Path, roles: Any, dispatch: str, batch: str, plan_ahead: bool
) -> None:
    async def serve() -> None:
        instance = {"batch": batch, "kv_blocks": 40}
        settings = {"dispatch": dispatch, "job_executors": 2, "task": TaskSettings(plan_ahead=plan_ahead)}
        record = Record(tmp_path, decisions="all")
        async with deploy(*roles, iteration_s=0.001, instance=instance, record=record, **settings) as bench:
            for answered in await bench.ask_many(40):
                answered.check()

    asyncio.run(serve())
    found = [policy for path in sorted(tmp_path.glob("decisions*.jsonl")) for policy in replay(path)]
    assert [policy.difference for policy in found] == [None] * len(found)
    routed = sum(policy.decisions for policy in found if policy.kind == "dispatch")
    planned = sum(policy.decisions for policy in found if policy.kind == "batch")
    assert routed >= 40
    assert planned >= 10
    lanes = sum(2 if role == "semi_pd" else 1 for role in roles)
    assert sum(policy.kind == "batch" for policy in found) == lanes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_decisions_that_cannot_be_recorded_are_told_like_a_log_that_ended(deploy: Deploy, tmp_path: Path) -> None:
    for process in ("je0", "te0"):
        (tmp_path / f"decisions-{process}.jsonl").symlink_to("/dev/full")

    async def serve() -> None:
        async with deploy("colocated", record=Record(tmp_path, decisions="all")) as bench:
            for answered in await bench.ask_many(8):
                answered.check()
                assert answered.error is None
            said = (await bench.loopback.drain(2.0)).log_error
            lost = "decisions are recorded no further: No space left on device"
            assert sorted(said.split("; ")) == [f"job executor 0: {lost}", f"task executor 0: {lost}"]
            await bench.until(lambda: bench.loopback.gateway.stats().log_error == said)

    asyncio.run(serve())
