"""The stream that gateways push into."""

from __future__ import annotations

import asyncio

import pytest

from reference_impl.engine.api import SampledToken
from reference_impl.serve.http.delta_stream import DeltaStream
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import Delta

pytestmark = pytest.mark.anyio
A, B = SampledToken(0, 5), SampledToken(0, 6)


class Ended(list[str | None]):
    """Reasons for which a consumer ended it."""


async def test_what_is_put_comes_out_in_order_and_then_it_is_over() -> None:
    stream = DeltaStream(0, Ended().append)
    stream.put((A,))
    assert await anext(stream) == Delta((A,))
    stream.put((B,), "length")
    assert stream.over
    assert [delta async for delta in stream] == [Delta((B,), "length")]


async def test_a_waiting_consumer_is_woken_and_a_late_one_gets_all_at_once() -> None:
    stream = DeltaStream(0, Ended().append)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    stream.put((A,))
    assert await waiting == Delta((A,))
    stream.put((A,))
    stream.put((B,), "stop")
    assert await anext(stream) == Delta((A, B), "stop")


async def test_an_error_comes_after_what_was_there() -> None:
    ended = Ended()
    stream = DeltaStream(0, ended.append)
    stream.put((A,))
    stream.fail(ServingError(503, "gone"))
    stream.put((B,))
    assert await anext(stream) == Delta((A,))
    with pytest.raises(ServingError, match="gone"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    stream.cancel("late")
    assert ended == []


@pytest.mark.parametrize("reason", [None, "client_left"])
async def test_a_consumer_that_ends_it_is_reported_once_and_gets_nothing_more(reason: str | None) -> None:
    ended = Ended()
    stream = DeltaStream(0, ended.append)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    stream.put((A,))
    for _ in range(2):
        if reason is None:
            stream.end()
        else:
            stream.cancel(reason)
    stream.put((B,), "length")
    with pytest.raises(StopAsyncIteration):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert ended == [reason]


async def test_ending_a_finished_stream_reports_nothing() -> None:
    ended = Ended()
    stream = DeltaStream(0, ended.append)
    stream.put((A,), "length")
    stream.cancel("client_left")
    assert ended == []
