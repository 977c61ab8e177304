"""Our own load client against our own front door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from reference_impl.engine.prefix_ids import prefix_ids
from reference_impl.serve.http.testing import FakeGateway
from workloads.client.ask import PromptForm
from workloads.client.replay import Replayed, replay
from workloads.client.settings import ReplaySettings
from workloads.trace import Trace

Serve = Callable[[FastAPI], AbstractAsyncContextManager[str]]
BLOCK = 16


def trace() -> Trace:
    ids = ((1, 2), (1, 2), (1, 3), ())
    return Trace(
        "t",
        np.array([0.0, 0.01, 0.01, 0.02]),
        np.array([40, 33, 48, 7]),
        np.array([5, 1, 9, 3]),
        prefix_ids=ids,
        prefix_block_tokens=BLOCK,
        tenant=("a", "a", "b", "b"),
        session_id=("s", "t", "s", "t"),
    )


async def replayed(make_app: Callable[..., FastAPI], serve: Serve, **settings: Any) -> Replayed:
    async with serve(make_app()) as url:
        return await asyncio.to_thread(replay, trace(), ReplaySettings(url, warmup_requests=2, **settings))


@pytest.mark.anyio
async def test_every_token_is_counted_as_the_server_says(
    make_app: Callable[..., FastAPI], serve: Serve, gateway: FakeGateway
) -> None:
    found = await replayed(make_app, serve)
    assert [record.outcome for record in found.records] == ["finished"] * 4
    assert [record.served_prompt_tokens for record in found.records] == [40, 33, 48, 7]
    assert [record.counts() for record in found.records] == [[1] * 5, [1], [1] * 9, [1] * 3]
    assert all(record.answer.counted for record in found.records)
    asked = sorted(gateway.requests[-4:], key=lambda request: len(request.prompt))
    assert [request.tenant for request in asked] == ["b", "a", "a", "b"]
    assert all(request.params.ignore_eos and request.params.temperature == 0 for request in asked)
    _, short, middle, long = (prefix_ids(request.prompt, BLOCK) for request in asked)
    assert short == middle
    assert (short[0], short[1] == long[1]) == (long[0], False)


@pytest.mark.anyio
@pytest.mark.parametrize("prompts", ["text", "chat"])
async def test_prompts_of_text_are_answered_too(
    prompts: PromptForm, make_app: Callable[..., FastAPI], serve: Serve
) -> None:
    found = await replayed(make_app, serve, prompts=prompts)
    assert [record.outcome for record in found.records] == ["finished"] * 4
    assert [record.served_output_tokens for record in found.records] == [5, 1, 9, 3]
