"""A whole deployment without processes: requests through every role, and what the run's log says of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from policies.api import Role
from reference_impl.engine.api import SamplingParams
from reference_impl.engine.post import HandoverSettings
from reference_impl.engine.task_executor import TaskSettings
from reference_impl.engine.testing import fake_tokens
from reference_impl.metrics import per_request, read, summarise, token_times
from reference_impl.serve.collect import collect
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import GenerateRequest

FLEETS: list[tuple[Role, ...]] = [
    ("colocated", "colocated"),
    ("prefill", "decode", "decode"),
    ("semi_pd",),
    ("colocated", "prefill", "decode"),
]
METADATA = {"schema_version": 1, "instances": []}


@pytest.mark.parametrize("roles", FLEETS, ids="-".join)
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_every_request_gets_its_tokens(deploy: Any, roles: tuple[Role, ...], transport: str) -> None:
    async def check() -> None:
        async with deploy(*roles, transport=transport) as bench:
            for answered in await bench.ask_many(40):
                answered.check()
                assert answered.error is None
            await bench.check_nothing_is_held()

    asyncio.run(check())


@pytest.mark.parametrize("dispatch", ["least_loaded:metric=tokens", "round_robin"])
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_hand_overs_by_layer_give_the_same_tokens(deploy: Any, transport: Any, dispatch: str) -> None:
    async def check() -> None:
        task = TaskSettings(plan_ahead=True, handover=HandoverSettings(transport, "layer"))
        async with deploy("prefill", "decode", "decode", task=task, dispatch=dispatch, iteration_s=0.001) as bench:
            for answered in await bench.ask_many(40):
                answered.check()
                assert answered.error is None
            assert bench.loopback.gateway.stats().redispatched_total == 0
            await bench.check_nothing_is_held()

    asyncio.run(check())


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_by_layer_kv_is_pulled_before_its_prefill_has_ended(deploy: Any, transport: Any) -> None:
    def iteration_s(batch: Any) -> float:
        return 0.6 if batch.chunks else 0.002

    async def check() -> None:
        task = TaskSettings(handover=HandoverSettings(transport, "layer"))
        async with deploy("prefill", "decode", task=task, iteration_s=iteration_s) as bench:
            executors = [host.node.server.executor for host in bench.loopback.task_executors]
            decode = next(executor for executor in executors if executor.view().role == "decode")
            params = SamplingParams(5, temperature=0.0)
            stream = bench.loopback.gateway.generate(GenerateRequest(tuple(range(30)), params, 0.0))
            pool = decode.running.crew.pool
            await bench.until(lambda: bool(pool.pieces[0].any()))
            assert not pool.pieces[1].any(), "the second layer is still being computed"
            tokens = [sampled.token async for delta in stream for sampled in delta.tokens]
            assert tuple(tokens) == fake_tokens(range(30), 5)
            await bench.check_nothing_is_held()

    asyncio.run(check())


@pytest.mark.parametrize("roles", FLEETS, ids="-".join)
def test_the_log_of_a_run_tells_every_token(deploy: Any, roles: tuple[Role, ...], folder: Path) -> None:
    async def check() -> None:
        async with deploy(*roles, iteration_s=0.002) as bench:
            await bench.ask_many(12)
            assert (await bench.loopback.drain(2.0)).drained

    asyncio.run(check())
    collected = collect(folder / "rows.spool", folder / "events.parquet", folder / "requests.jsonl", METADATA)
    assert collected == (12, 0, 0)
    run = read(folder / "events.parquet")
    metrics = summarise(run)
    assert (metrics["completed"], metrics["arrived"]) == (12, 12)
    assert "itl_mean_ms" in metrics
    table = per_request(run)
    for row in range(12):
        assert len(token_times(run, int(table.request[row]))) == table.output_tokens[row]
    assert len((folder / "requests.jsonl").read_text().splitlines()) == 12


def test_several_front_doors_and_job_executors_share_the_instances(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("colocated", "colocated", front_doors=3, job_executors=2) as bench:
            answers = await asyncio.gather(*(bench.ask_many(8, front_door=number) for number in range(3)))
            for answered in [one for many in answers for one in many]:
                answered.check()
                assert answered.error is None
            ids = [host.node.gateway.beat().next_request_id % 3 for host in bench.loopback.front_doors]
            assert sorted(ids) == [0, 1, 2]

    asyncio.run(check())


def test_the_policy_decides_where_requests_go(deploy: Any, folder: Path) -> None:
    async def check() -> None:
        async with deploy("colocated", "colocated", "colocated", dispatch="round_robin") as bench:
            for _ in range(6):
                await bench.ask(range(8))
            await bench.loopback.drain(2.0)

    asyncio.run(check())
    collect(folder / "rows.spool", folder / "events.parquet", folder / "requests.jsonl", METADATA)
    table = per_request(read(folder / "events.parquet"))
    assert sorted(table.path(row)[0] for row in range(6)) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("plan_ahead", [False, True], ids=["plain", "ahead"])
def test_a_colocated_instance_hands_over_to_the_one_that_was_chosen_with_it(
    deploy: Any, folder: Path, plan_ahead: bool
) -> None:
    async def check() -> None:
        task = TaskSettings(plan_ahead=plan_ahead)
        async with deploy("colocated", "colocated", task=task, dispatch="splitwise_mixed:prompt_instances=1") as bench:
            for answered in await bench.ask_many(12):
                answered.check()
                assert answered.error is None
            await bench.check_nothing_is_held()
            await bench.loopback.drain(2.0)

    asyncio.run(check())
    collect(folder / "rows.spool", folder / "events.parquet", folder / "requests.jsonl", METADATA)
    table = per_request(read(folder / "events.parquet"))
    assert {tuple(table.path(row)) for row in range(12) if table.output_tokens[row] > 1} == {(0, 1)}


def test_a_request_that_fits_nowhere_is_refused_at_once(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("prefill", "decode", instance={"max_context_tokens": 50}) as bench:
            answered = await bench.ask(range(20), 31)
            assert answered.error is not None
            assert (answered.error.status, answered.error.code) == (400, "context_length_exceeded")
            assert (await bench.ask(range(20), 30)).error is None

    asyncio.run(check())


def test_a_client_that_leaves_gives_its_blocks_back(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("prefill", "decode", iteration_s=0.005) as bench:
            gateway = bench.loopback.gateway
            params = SamplingParams(100, temperature=0.0)
            streams = [gateway.generate(GenerateRequest((1, 2, 3), params, 0.0)) for _ in range(6)]
            for number, stream in enumerate(streams):
                for _ in range(number):
                    await anext(stream)
                stream.cancel("the client is gone")
            await bench.check_nothing_is_held()

    asyncio.run(check())


def test_a_stream_that_has_enough_counts_as_finished(deploy: Any, folder: Path) -> None:
    async def check() -> None:
        async with deploy("colocated", iteration_s=0.005) as bench:
            params = SamplingParams(100, temperature=0.0)
            stream = bench.loopback.gateway.generate(GenerateRequest((1, 2, 3), params, 0.0))
            first = await anext(stream)
            stream.end()
            assert first.tokens[0].token == fake_tokens((1, 2, 3), 1)[0]
            await bench.check_nothing_is_held()
            await bench.loopback.drain(2.0)

    asyncio.run(check())
    collect(folder / "rows.spool", folder / "events.parquet", folder / "requests.jsonl", METADATA)
    assert summarise(read(folder / "events.parquet"))["completed"] == 1


def test_cached_tokens_are_told(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("colocated") as bench:
            gateway = bench.loopback.gateway
            cached = []
            for _ in range(2):
                stream = gateway.generate(GenerateRequest(tuple(range(17)), SamplingParams(2, temperature=0.0), 0.0))
                async for _ in stream:
                    pass
                cached.append(stream.cached_tokens)
            assert cached == [0, 16]

    asyncio.run(check())


def test_while_it_drains_nothing_new_is_taken_in_and_what_runs_finishes(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("colocated", iteration_s=0.005) as bench:
            running = asyncio.create_task(bench.ask(range(8), 20))
            await bench.until(lambda: bench.loopback.gateway.beat().in_flight == 1)
            draining = asyncio.create_task(bench.loopback.drain(5.0))
            await bench.until(lambda: bench.loopback.gateway.beat().state == "draining")
            refused = await bench.ask(range(8))
            assert refused.error is not None
            assert (refused.error.status, refused.error.code) == (503, "shutting_down")
            answered = await running
            answered.check()
            assert answered.error is None
            assert (await draining).drained

    asyncio.run(check())


def test_what_still_runs_after_the_time_to_drain_gets_one_error(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("colocated", iteration_s=0.02) as bench:
            running = asyncio.create_task(bench.ask(range(8), 200))
            await bench.until(lambda: bench.loopback.gateway.beat().in_flight == 1)
            await bench.loopback.drain(0.1)
            answered = await running
            answered.check()
            assert isinstance(answered.error, ServingError)
            await bench.check_nothing_is_held()

    asyncio.run(check())


def test_health_names_the_phase_that_nobody_serves(deploy: Any) -> None:
    async def check() -> None:
        async with deploy("prefill", "decode") as bench:
            gateway = bench.loopback.gateway
            assert (await gateway.health()).ready
            await bench.loopback.task_executors[1].kill()
            decode = bench.loopback.task_executors.pop()
            assert decode
            await bench.until(lambda: len(gateway._peers.connected("task_executor")) == 1)
            health = await gateway.health()
            assert (health.ready, health.instances_ready, health.instances) == (False, 1, 2)
            assert health.detail in ("no instance for decode is ready", "no instance for prefill is ready")

    asyncio.run(check())


def test_targets_are_judged_at_the_front_door(deploy: Any) -> None:
    from reference_impl.core.spec import Slo

    async def check(slo: Slo) -> tuple[int, int]:
        async with deploy("colocated", iteration_s=0.002, slo=slo) as bench:
            await bench.ask_many(5)
            counts = bench.loopback.gateway.beat().counts
            return counts.finished, counts.met_slo

    assert asyncio.run(check(Slo(ttft_s=5.0, tpot_s=5.0))) == (5, 5)


def test_targets_that_cannot_be_met_are_missed(deploy: Any) -> None:
    from reference_impl.core.spec import Slo

    async def check() -> None:
        async with deploy("colocated", iteration_s=0.002, slo=Slo(ttft_s=1e-6)) as bench:
            await bench.ask_many(5)
            assert bench.loopback.gateway.beat().counts.met_slo == 0

    asyncio.run(check())


def test_a_class_with_targets_of_its_own_is_judged_by_those(deploy: Any) -> None:
    from reference_impl.core.spec import Slo

    async def check() -> None:
        slo = Slo(ttft_s=1e-6, classes={"batch": Slo(ttft_s=5.0)})
        async with deploy("colocated", iteration_s=0.002, slo=slo) as bench:
            gateway = bench.loopback.gateway
            for slo_class, met in (("batch", 1), ("other", 1), (None, 1), ("batch", 2)):
                params = SamplingParams(3, temperature=0.0)
                request = GenerateRequest((1, 2, 3), params, bench.spec.clock(), slo_class=slo_class)
                async for _ in gateway.generate(request):
                    pass
                assert gateway.beat().counts.met_slo == met

    asyncio.run(check())
