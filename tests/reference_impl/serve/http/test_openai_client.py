"""The API as OpenAI's own client sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import openai
import pytest
from fastapi import FastAPI
from openai.types.chat import ChatCompletionUserMessageParam

from reference_impl.engine.api import SamplingParams
from reference_impl.serve.http.testing import FakeGateway, Script
from reference_impl.serve.http.tokenizer import Tokenizer

pytestmark = pytest.mark.anyio
TURN: ChatCompletionUserMessageParam = {"role": "user", "content": "hi"}
Serve = Callable[[FastAPI], AbstractAsyncContextManager[str]]


@pytest.fixture
async def api(make_app: Callable[[], FastAPI], serve: Serve) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        serve(make_app()) as url,
        openai.AsyncOpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0) as api,
    ):
        yield api


async def test_a_completion_has_text_usage_and_a_reason(api: openai.AsyncOpenAI) -> None:
    answer = await api.completions.create(model="tiny", prompt="hello", seed=0, max_tokens=3)
    assert (answer.choices[0].text, answer.choices[0].finish_reason, answer.object) == (
        "bcd",
        "length",
        "text_completion",
    )
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    assert answer._request_id == "0"


async def test_a_chat_is_put_through_the_template(
    api: openai.AsyncOpenAI, gateway: FakeGateway, tokenizer: Tokenizer
) -> None:
    answer = await api.chat.completions.create(model="tiny", messages=[TURN], seed=0, max_completion_tokens=2)
    assert (answer.choices[0].message.role, answer.choices[0].message.content) == ("assistant", "bc")
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert list(gateway.requests[0].prompt) == tokenizer.encode(text, special_tokens=False)


async def test_an_answer_can_be_sent_back_as_the_next_turn(api: openai.AsyncOpenAI) -> None:
    first = await api.chat.completions.create(model="tiny", messages=[TURN], max_tokens=2)
    turns = [TURN, first.choices[0].message.model_dump(), TURN]
    second = await api.chat.completions.create(model="tiny", messages=turns, max_tokens=2)  # type: ignore[arg-type]
    assert second.choices[0].finish_reason == "length"


async def test_streams_add_up_to_the_answer(api: openai.AsyncOpenAI) -> None:
    whole = await api.chat.completions.create(model="tiny", messages=[TURN], seed=4, max_tokens=9)
    chunks = await api.chat.completions.create(model="tiny", messages=[TURN], seed=4, max_tokens=9, stream=True)
    deltas = [chunk.choices[0].delta async for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert [delta.role for delta in deltas] == ["assistant", *[None] * 8]


async def test_a_streamed_completion_ends_with_the_usage_that_was_asked_for(api: openai.AsyncOpenAI) -> None:
    stream = await api.completions.create(
        model="tiny", prompt=[5, 6], max_tokens=2, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert [chunk.usage is None for chunk in chunks] == [True, True, False]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 4


async def test_n_choices_differ_and_the_first_is_that_of_n_1(api: openai.AsyncOpenAI, gateway: FakeGateway) -> None:
    one = await api.completions.create(model="tiny", prompt="x", seed=11, max_tokens=4)
    three = await api.completions.create(model="tiny", prompt=["x", "y"], seed=11, max_tokens=4, n=3)
    assert [choice.index for choice in three.choices] == list(range(6))
    assert three.choices[0].text == three.choices[3].text == one.choices[0].text
    assert len({request.params.seed for request in gateway.requests}) == 3
    assert three.usage is not None
    assert three.usage.prompt_tokens == 2
    assert three.usage.completion_tokens == 24


async def test_n_streams_are_told_apart_by_their_index(api: openai.AsyncOpenAI) -> None:
    texts = {0: "", 1: ""}
    stream = await api.chat.completions.create(model="tiny", messages=[TURN], n=2, seed=1, max_tokens=5, stream=True)
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    whole = await api.chat.completions.create(model="tiny", messages=[TURN], n=2, seed=1, max_tokens=5)
    assert list(texts.values()) == [choice.message.content for choice in whole.choices]


async def test_completion_logprobs_are_parallel_lists(api: openai.AsyncOpenAI) -> None:
    answer = await api.completions.create(model="tiny", prompt="x", seed=0, max_tokens=2, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.token_logprobs, logprobs.text_offset) == (["b", "c"], [-0.5, -0.5], [0, 1])
    assert logprobs.top_logprobs == [{"b": -0.5, "c": -1.5}, {"c": -0.5, "d": -1.5}]


async def test_chat_logprobs_are_one_object_a_token(api: openai.AsyncOpenAI) -> None:
    answer = await api.chat.completions.create(
        model="tiny", messages=[TURN], seed=0, max_tokens=1, logprobs=True, top_logprobs=1
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    (entry,) = logprobs.content
    assert (entry.token, entry.bytes, entry.logprob) == ("b", [98], -0.5)
    assert [(top.token, top.logprob) for top in entry.top_logprobs] == [("b", -0.5)]


async def test_a_stop_string_ends_text_and_request(api: openai.AsyncOpenAI, gateway: FakeGateway) -> None:
    answer = await api.completions.create(model="tiny", prompt="x", seed=0, max_tokens=50, stop=["zz", "ef"])
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("bcd", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert gateway.ended == {0: None}


async def test_an_end_of_sequence_token_counts_but_is_no_text(api: openai.AsyncOpenAI, gateway: FakeGateway) -> None:
    gateway.script = lambda request: Script([68, 69, 2])
    answer = await api.completions.create(model="tiny", prompt="x", max_tokens=10)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("bc", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_sampling_parameters_reach_the_gateway(api: openai.AsyncOpenAI, gateway: FakeGateway) -> None:
    extra = {"top_k": 5, "ignore_eos": True, "stop_token_ids": [7], "min_tokens": 0}
    await api.completions.create(
        model="tiny", prompt="x", seed=3, max_tokens=2, temperature=0, top_p=0.5, logprobs=1, extra_body=extra
    )
    assert gateway.requests[0].params == SamplingParams(2, 0.0, 0.5, 5, 3, (7,), True, 1)


async def test_cached_tokens_are_told_where_they_are_known(api: openai.AsyncOpenAI, gateway: FakeGateway) -> None:
    gateway.script = lambda request: Script([68], cached_tokens=16)
    answer = await api.completions.create(model="tiny", prompt=[9] * 20, max_tokens=1, n=2)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 16


async def test_models_are_listed(api: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in api.models.list()] == ["tiny"]
    card = (await api.models.retrieve("tiny")).model_dump()
    assert (card["max_model_len"], card["vocab_size"], card["special_token_ids"]) == (2048, 4096, [0, 1, 2])
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await api.models.retrieve("org/other")


async def test_errors_are_the_clients_own_classes(api: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await api.completions.create(model="gpt-5", prompt="x")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        await api.completions.create(model="tiny", prompt="x", temperature=3)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="fine-tuning jobs are not supported yet"):
        await api.fine_tuning.jobs.create(model="tiny", training_file="x")


async def test_a_failure_in_mid_stream_raises_in_the_client(api: openai.AsyncOpenAI, gateway: FakeGateway) -> None:
    gateway.script = lambda request: Script([68] * 9, fails_after=3)
    seen = []
    with pytest.raises(openai.APIError, match="instance 0 failed"):
        async for chunk in await api.completions.create(model="tiny", prompt="x", max_tokens=9, stream=True):
            seen += [chunk.choices[0].text]
    assert seen == ["b"] * 3
