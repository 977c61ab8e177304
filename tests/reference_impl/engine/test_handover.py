"""KV hand-over between task executors: over shared memory and TCP, by request and by layer, and what can go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import pytest

from policies.api import BatchPlan
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.kv_wire import KvServer
from reference_impl.engine.post import HandoverSettings
from reference_impl.engine.step import Failure, Parcel, Step
from reference_impl.engine.testing import FakeCrew, FakeDoor, fake_layout, fake_request, fake_tokens

Make = Callable[..., Any]
Wait = Callable[[Callable[[], bool]], Awaitable[None]]
THREADS = {"iteration_s": 0.002}
WAYS = [(transport, granularity) for transport in ("shm", "tcp") for granularity in ("request", "layer")]


def serve(executors: Sequence[Any], act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        for executor in executors:
            await executor.start()
        try:
            await act()
        finally:
            for executor in executors:
                await executor.stop()

    asyncio.run(whole())


def check_empty(*executors: Any) -> None:
    for executor in executors:
        executor.instance.check_integrity()
        view = executor.view()
        assert (view.running_requests, view.waiting_requests, view.waiting_tokens) == (0, 0, 0)
        assert view.free_blocks == view.total_blocks


@pytest.mark.parametrize("crews", [{}, THREADS], ids=["in the loop", "threads"])
@pytest.mark.parametrize("plan_ahead", [False, True], ids=["plain", "ahead"])
@pytest.mark.parametrize(("transport", "granularity"), WAYS)
def test_tokens_are_exact(
    until: Wait, executor: Make, prompts: Make, transport: Any, granularity: Any, plan_ahead: bool, crews: Any
) -> None:
    options = {
        "plan_ahead": plan_ahead,
        "crews": crews,
        "handover": HandoverSettings(transport, granularity),
        "kv_blocks": 50,
    }
    prefills = [executor("prefill", "chunked_prefill:chunk_tokens=16", **options) for _ in range(2)]
    decodes = [executor("decode", **options) for _ in range(2)]
    drawn = prompts(1, 40)

    async def act() -> None:
        door = FakeDoor(prefills, decodes)
        tokens = await door.serve([fake_request(i, prompt, 1 + i % 15) for i, prompt in enumerate(drawn)])
        assert tokens == {i: fake_tokens(prompt, 1 + i % 15) for i, prompt in enumerate(drawn)}
        assert all(job.ends == ["length"] for job in door.jobs.values())
        await until(lambda: all(executor.view().running_requests == 0 for executor in prefills))
        check_empty(*prefills, *decodes)
        rows = [executor.take_rows() for executor in decodes]
        moved = [row for row_lists in rows for row in row_lists["transfer"]]
        assert len(moved) >= sum(i % 15 > 0 for i in range(40))
        assert all(start_s <= end_s for end_s, *_, start_s in moved)

    serve([*prefills, *decodes], act)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_by_layer_pulling_begins_while_the_last_chunk_is_computed(until: Wait, executor: Make, transport: Any) -> None:
    handover = HandoverSettings(transport, "layer")
    source = executor("prefill", crews={"iteration_s": 0.2}, handover=handover)
    target = executor("decode", crews=THREADS, handover=handover)
    steps: list[tuple[str, Step]] = []

    async def act() -> None:
        source.on_step = lambda step: steps.append(("source", step))
        target.on_step = lambda step: steps.append(("target", step))
        request = fake_request(0, list(range(30)), 5)
        source.submit(request)
        await until(lambda: any(step.parcels for _, step in steps))
        (early,) = next(step.parcels for _, step in steps if step.parcels)
        assert early.early
        target.adopt(request, early)
        pool = target.crews[-1].pool
        await until(lambda: bool(pool.pieces[0].any()))
        assert not pool.pieces[1].any()
        assert not any(step.outputs for _, step in steps)
        await until(lambda: any(step.outputs for _, step in steps))
        done = next(step for _, step in steps if step.outputs)
        assert not any(step.adopted for _, step in steps)
        token = done.outputs[0].tokens[0].token
        target.adopt(fake_request(0, list(range(30)), 5, generated=[token]), done.parcels[0])
        await until(lambda: any(step.adopted for _, step in steps))
        await until(lambda: len(_tokens(steps)) >= 5)
        assert _tokens(steps) == fake_tokens(list(range(30)), 5)

    serve([source, target], act)


def _tokens(steps: list[tuple[str, Step]]) -> tuple[int, ...]:
    return tuple(token.token for _, step in steps for output in step.outputs for token in output.tokens)


@pytest.mark.parametrize("granularity", ["request", "layer"])
def test_a_parcel_that_comes_twice_is_taken_once(until: Wait, executor: Make, granularity: Any) -> None:
    handover = HandoverSettings("shm", granularity)
    source = executor("prefill", crews=THREADS, handover=handover)
    target = executor("decode", crews=THREADS, handover=handover)

    async def act() -> None:
        door = FakeDoor([source], [target])
        adopt = target.adopt

        def twice(request: Any, parcel: Parcel) -> None:
            for _ in range(2):
                adopt(request, parcel)
            late.append((request, parcel))

        late: list[tuple[Any, Parcel]] = []
        target.adopt = twice
        for i in range(4):
            door.submit(fake_request(i, [i] * 10, 20))
        await until(lambda: all(len(job.tokens) > 5 for job in door.jobs.values()))
        for request, parcel in late:
            adopt(request, parcel)
        await door.finished()
        assert all(tuple(job.tokens) == fake_tokens([i] * 10, 20) for i, job in door.jobs.items())
        assert all(job.ends == ["length"] and not job.tries for job in door.jobs.values())
        await until(lambda: source.view().running_requests == 0)
        check_empty(source, target)

    serve([source, target], act)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_pull_is_cut_when_the_worker_of_its_source_dies(until: Wait, executor: Make, transport: Any) -> None:
    handover = HandoverSettings(transport, "layer", timeout_s=60.0)
    source = executor("prefill", crews={"iteration_s": 60.0}, handover=handover)
    target = executor("decode", handover=handover, stall_timeout_s=0.02)  # so it often looks what it can let go
    parcels: list[Parcel] = []
    failed: list[Failure] = []

    async def act() -> None:
        source.on_step = lambda step: parcels.extend(step.parcels)
        target.on_step = lambda step: failed.extend(step.failed)
        request = fake_request(0, [1] * 20, 5)
        source.submit(request)
        await until(lambda: bool(parcels))
        target.adopt(request, parcels[0])
        await until(lambda: target.view().running_requests == 1)
        source.crews[-1].kill(0)
        await until(lambda: bool(failed))
        assert failed[0].reason.startswith("its hand-over failed: ")
        check_empty(target)

    serve([source, target], act)


def test_a_request_that_ends_with_its_first_token_is_not_announced(until: Wait, executor: Make) -> None:
    source = executor("prefill", crews=THREADS, handover=HandoverSettings("shm", "layer"))
    steps: list[Step] = []

    async def act() -> None:
        source.on_step = steps.append
        source.submit(fake_request(0, [1, 2], 1))
        source.submit(fake_request(1, [1, 2], 5, generated=[7, 8, 9, 10]))
        await until(lambda: sum(len(step.outputs) for step in steps) == 2)
        assert not any(step.parcels for step in steps)
        assert source.view().running_requests == 0

    serve([source], act)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_blocks_that_the_source_gave_up_after_announcing_them_are_pulled_again(executor: Make, transport: Any) -> None:
    """Two requests with one prompt in one iteration: the second one ends up with the first one's cached blocks."""
    handover = HandoverSettings(transport, "layer")
    source = executor("prefill", crews=THREADS, handover=handover)
    target = executor("decode", crews=THREADS, handover=handover)
    prompt = list(range(40))
    parcels: list[Parcel] = []

    async def act() -> None:
        door = FakeDoor([source], [target])
        take = source.on_step

        def listen(step: Step) -> None:
            parcels.extend(step.parcels)
            take(step)

        source.on_step = listen
        tokens = await door.serve([fake_request(i, prompt, 6) for i in range(4)])
        assert set(tokens.values()) == {fake_tokens(prompt, 6)}
        of_last = [parcel for parcel in parcels if parcel.request_id == 3]
        assert [parcel.early for parcel in of_last] == [True, False]
        assert of_last[0].blocks != of_last[1].blocks

    serve([source, target], act)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_full_decode_pool_backs_up_into_the_source(until: Wait, executor: Make, transport: Any) -> None:
    handover = HandoverSettings(transport)
    source = executor("prefill", crews=THREADS, handover=handover)
    target = executor("decode", crews=THREADS, handover=handover, kv_blocks=12)

    async def act() -> None:
        door = FakeDoor([source], [target])
        for i in range(6):
            door.submit(fake_request(i, [i] * 20, 8))
        await until(lambda: target.view().waiting_requests >= 2 and source.view().running_requests >= 2)
        await door.finished()
        assert all(tuple(job.tokens) == fake_tokens([i] * 20, 8) for i, job in door.jobs.items())
        await until(lambda: source.view().running_requests == 0)
        check_empty(source, target)

    serve([source, target], act)


@pytest.mark.parametrize(("transport", "granularity"), WAYS)
@pytest.mark.parametrize("victim", ["source", "target"])
def test_requests_survive_a_worker_that_dies_on_either_side(
    until: Wait, executor: Make, prompts: Make, transport: Any, granularity: Any, victim: str
) -> None:
    handover = HandoverSettings(transport, granularity)
    source = executor("prefill", "chunked_prefill:chunk_tokens=16", crews=THREADS, handover=handover)
    target = executor("decode", crews=THREADS, handover=handover)
    drawn = prompts(7, 16)

    async def act() -> None:
        door = FakeDoor([source], [target])
        for i, prompt in enumerate(drawn):
            door.submit(fake_request(i, prompt, 12))
        dies = source if victim == "source" else target
        for count in (10, 40, 70):
            await until(partial(_has_tokens, door, count))
            crew = dies.crews[-1]
            crew.kill(0)
            await until(partial(_is_not_last, dies.crews, crew))
        await door.finished()
        assert {i: tuple(job.tokens) for i, job in door.jobs.items()} == {
            i: fake_tokens(prompt, 12) for i, prompt in enumerate(drawn)
        }
        assert all(job.ends == ["length"] for job in door.jobs.values())
        await until(lambda: source.view().running_requests == 0)
        check_empty(source, target)

    serve([source, target], act)


def _has_tokens(door: FakeDoor, count: int) -> bool:
    return sum(len(job.tokens) for job in door.jobs.values()) >= count


def _is_not_last(crews: list[FakeCrew], crew: FakeCrew) -> bool:
    return crews[-1] is not crew


def adopt_alone(until: Wait, target: Any, parcel: Parcel, prompt: Sequence[int]) -> list[Failure]:
    """Adopt a parcel without any source; what failed."""
    failed: list[Failure] = []

    async def act() -> None:
        target.on_step = lambda step: failed.extend(step.failed)
        target.adopt(fake_request(0, prompt, 9, generated=[1]), parcel)
        await until(lambda: bool(failed))
        check_empty(target)

    serve([target], act)
    return failed


LAYOUT = (2, 1, 2, 4, "float32")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layout": (3, 1, 2, 4, "float32")}, "its KV has layout (3, 1, 2, 4, 'float32')"),
        ({"tokens": 9}, "its parcel has 9 tokens in 2 blocks, the request 8"),
        ({"blocks": (1,)}, "its parcel has 8 tokens in 1 blocks"),
        ({"address": "shm:/nowhere/pool"}, "its hand-over failed: the KV pool /nowhere/pool cannot be opened"),
        ({"address": "tcp:127.0.0.1:1"}, "its hand-over failed: "),
    ],
)
def test_a_parcel_that_cannot_be_had_fails_and_leaves_nothing(
    until: Wait, executor: Make, change: Any, reason: str
) -> None:
    parcel = Parcel(0, 9, 8, (0, 1), "shm:/nowhere/pool", "pool", LAYOUT)._replace(**change)
    transport: Any = parcel.address[:3]
    (failure,) = adopt_alone(until, executor("decode", handover=HandoverSettings(transport)), parcel, [1] * 8)
    assert failure.reason.startswith(reason)
    assert failure.retry


def test_hand_overs_on_their_way_fail_with_the_instance_when_its_policy_raises(until: Wait, executor: Make) -> None:
    source = executor("prefill", crews=THREADS)
    target = executor("decode", crews=THREADS, kv_blocks=12)

    async def act() -> None:
        door = FakeDoor([source], [target], tries=1)
        for i in range(4):
            door.submit(fake_request(i, [i] * 20, 8))
        await until(lambda: target.view().waiting_requests >= 2)
        target.instance.lanes[0].batch.plan = lambda lane: BatchPlan(preempt=(99,))
        await door.finished()
        assert all(isinstance(job.ends[0], Failure) and len(job.ends) == 1 for job in door.jobs.values())
        assert target.view().state == "failed"
        await until(lambda: source.view().running_requests == 0)
        check_empty(source)

    serve([source, target], act)


def test_a_prefill_instance_takes_no_hand_overs(until: Wait, executor: Make) -> None:
    parcel = Parcel(0, 9, 8, (0, 1), "shm:/nowhere/pool", "pool", LAYOUT)
    (failure,) = adopt_alone(until, executor("prefill"), parcel, [1] * 8)
    assert "only decode and colocated ones take hand-overs" in failure.reason


def test_a_request_too_large_for_the_decode_instance_is_refused_there(until: Wait, executor: Make) -> None:
    parcel = Parcel(0, 9, 8, (0, 1), "shm:/nowhere/pool", "pool", LAYOUT)
    (failure,) = adopt_alone(until, executor("decode", kv_blocks=3), parcel, [1] * 8)
    assert "exceed the 13 that a decode instance holds" in failure.reason


def test_a_hand_over_that_takes_too_long_is_given_up(until: Wait, executor: Make) -> None:
    """The source answers the question, and then says nothing more."""
    target = executor("decode", handover=HandoverSettings("tcp", timeout_s=0.2))
    failed: list[Failure] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"{}\n")
        await reader.read()
        writer.close()

    async def act() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        address = f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}"
        target.on_step = lambda step: failed.extend(step.failed)
        target.adopt(fake_request(0, [1] * 8, 9, generated=[1]), Parcel(0, 9, 8, (0, 1), address, "pool", LAYOUT))
        await until(lambda: bool(failed))
        check_empty(target)
        server.close()
        await server.wait_closed()

    serve([target], act)
    assert failed[0].reason == "its hand-over failed: it took longer than 0.2 s"


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_hand_over_that_is_not_wanted_any_more_leaves_nothing(until: Wait, executor: Make, transport: Any) -> None:
    handover = HandoverSettings(transport, "layer")
    source = executor("prefill", crews={"iteration_s": 0.05}, handover=handover)
    target = executor("decode", handover=handover)
    parcels: list[Parcel] = []

    async def act() -> None:
        source.on_step = lambda step: parcels.extend(step.parcels)
        request = fake_request(0, [1] * 20, 5)
        source.submit(request)
        await until(lambda: bool(parcels))
        target.adopt(request, parcels[0])
        await until(lambda: target.view().running_requests == 1)
        target.cancel(0, None)
        source.cancel(0, "its client left")
        await until(lambda: source.view().free_blocks == 64)  # the iteration under way still writes to its blocks
        check_empty(source, target)
        assert source.take_rows()["reject"][0][1:] == (0, "its client left")

    serve([source, target], act)


def test_a_source_serves_only_what_it_holds_and_no_strangers(executor: Make, tmp_path: Any) -> None:
    async def ask(address: str, line: bytes) -> bytes:
        _, host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line)
        answer = await reader.readline()
        writer.close()
        return answer

    async def whole() -> None:
        server = KvServer(lambda request_id: request_id == 7)
        address = await server.start("127.0.0.1")
        pool = KvFile.create(tmp_path / "pool", fake_layout(4), 8)
        assert b"is gone" in await ask(address, json.dumps([7, "pool", [0], None]).encode() + b"\n")
        server.show(pool, None)
        assert b"request 8 is not handed over here" in await ask(address, b'[8, "pool", [0], null]\n')
        assert b"the pool other is gone" in await ask(address, b'[7, "other", [0], null]\n')
        assert await ask(address, b'[7, "pool", [0], null]\n') == b"{}\n"
        for nonsense in (b"\n", b"GET / HTTP/1.1\r\n", b'{"a": 1}\n', b'[7, "pool", [99], null]\n', b"\xff\n"):
            assert await ask(address, nonsense) in (b"", b"{}\n")
        await server.stop()

    asyncio.run(whole())
