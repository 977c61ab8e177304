"""Whatever is sent, the answer is a 4xx in OpenAI's shape that names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.testing import FakeGateway, Script

pytestmark = pytest.mark.anyio
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
JSON = {"content-type": "application/json"}
TURN = [{"role": "user", "content": "hi"}]


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    return error


BYTES = {
    "nothing": b"",
    "cut": b'{"model": "tiny", "prompt": "x"',
    "invalid utf-8": b'{"model": "tiny", "prompt": "\xff\xfe"}',
    "half a surrogate": b'{"model": "tiny", "prompt": "\\ud800"}',
    "not a number": b'{"model": "tiny", "prompt": "x", "temperature": NaN}',
    "infinity": b'{"model": "tiny", "prompt": "x", "temperature": -Infinity}',
    "a list": b'["tiny"]',
    "null": b"null",
    "deep": b"[" * 100_000,
    "endless number": b'{"model": "tiny", "prompt": "x", "seed": ' + b"9" * 10_000 + b"}",
    "control character": b'{"model": "tiny", "prompt": "\x00"}',
}


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/v1/jobs"])
@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES.keys())
async def test_what_is_no_json_object_is_refused(client: httpx.AsyncClient, path: str, data: bytes) -> None:
    answer = await client.post(path, content=data, headers=JSON)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "invalid_json"


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("temperature", {"temperature": -0.1}),
    ("temperature", {"temperature": "1"}),
    ("temperature", {"temperature": True}),
    ("temperature", {"temperature": 1e308}),
    ("top_p", {"top_p": 0}),
    ("top_k", {"top_k": -2}),
    ("n", {"n": 0}),
    ("n", {"n": 129}),
    ("n", {"n": 10**30}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": 2**40}),
    ("max_tokens", {"max_tokens": 1.5}),
    ("max_tokens", {"max_tokens": 2048}),
    ("min_tokens", {"min_tokens": 3, "max_tokens": 5}),
    ("min_tokens", {"min_tokens": 6, "max_tokens": 5, "ignore_eos": True}),
    ("seed", {"seed": 2**63}),
    ("stop", {"stop": ["a", "b", "c", "d", "e"]}),
    ("stop", {"stop": ""}),
    ("stop", {"stop": "x" * 1000}),
    ("stop", {"stop": 7}),
    ("stop_token_ids", {"stop_token_ids": [4096]}),
    ("stop_token_ids[1]", {"stop_token_ids": [1, -1]}),
    ("stop_token_ids", {"stop_token_ids": [1] * 65}),
    ("stream", {"stream": "yes"}),
    ("stream_options", {"stream_options": {"include_usage": True}}),
    ("stream_options.every", {"stream": True, "stream_options": {"every": 1}}),
    ("user", {"user": 5}),
    ("user", {"user": "x" * 10_000}),
    ("frobnicate", {"frobnicate": None}),
    ("echo", {"echo": True}),
    ("echo", {"echo": 1}),
    ("suffix", {"suffix": "end"}),
    ("best_of", {"best_of": 4, "n": 2}),
    ("logit_bias", {"logit_bias": {"50256": -100}}),
    ("presence_penalty", {"presence_penalty": 0.5}),
    ("tools", {"tools": [{"type": "function"}]}),
    ("response_format", {"response_format": {"type": "json_object"}}),
]
NEUTRAL = {
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "best_of": 2,
    "n": 2,
    "suffix": None,
    "echo": False,
    "tools": [],
    "tool_choice": "auto",
    "response_format": {"type": "text"},
    "store": False,
    "service_tier": "auto",
    "repetition_penalty": 1.0,
    "user": "somebody",
    "safety_identifier": "abc",
}


@pytest.mark.parametrize(("param", "fields"), WRONG, ids=[f"{json.dumps(f)[:40]}" for _, f in WRONG])
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
async def test_a_wrong_value_is_refused_by_name(
    client: httpx.AsyncClient, gateway: FakeGateway, path: str, param: str, fields: dict[str, Any]
) -> None:
    prompt = {"prompt": "x"} if path == COMPLETIONS else {"messages": TURN}
    answer = await client.post(path, json={"model": "tiny", **prompt, **fields})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param
    assert gateway.requests == []


NO_PROMPTS: tuple[Any, ...] = (
    None,
    "",
    [],
    [[]],
    [""],
    ["a", [1]],
    [1.5],
    [-1],
    [True],
    {"a": 1},
    3,
    [4096],
    ["a"] * 200,
)


@pytest.mark.parametrize("prompt", NO_PROMPTS)
async def test_what_is_no_prompt_is_refused(client: httpx.AsyncClient, prompt: Any) -> None:
    answer = await client.post(COMPLETIONS, json={"model": "tiny", "prompt": prompt})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == ("n" if prompt == ["a"] * 200 else "prompt")


@pytest.mark.parametrize(
    ("param", "messages"),
    [
        ("messages", []),
        ("messages", "hi"),
        ("messages[0]", ["hi"]),
        ("messages[0].role", [{"content": "hi"}]),
        ("messages[0].role", [{"role": "tool", "content": "hi", "tool_call_id": "1"}]),
        ("messages[0].content", [{"role": "user", "content": None}]),
        ("messages[0].content", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        ("messages[1].content", [*TURN, {"role": "assistant"}]),
        ("messages[0].tool_calls", [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]),
    ],
)
async def test_a_wrong_message_is_refused_by_its_place(client: httpx.AsyncClient, param: str, messages: Any) -> None:
    answer = await client.post(CHAT, json={"model": "tiny", "messages": messages})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("top_logprobs", {"top_logprobs": 2}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("logprobs", {"logprobs": 1}),
        ("max_tokens", {"max_tokens": 3, "max_completion_tokens": 4}),
        ("max_completion_tokens", {"max_completion_tokens": 5000}),
    ],
)
async def test_chats_have_parameters_of_their_own(
    client: httpx.AsyncClient, param: str, fields: dict[str, Any]
) -> None:
    answer = await client.post(CHAT, json={"model": "tiny", "messages": TURN, **fields})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


@pytest.mark.parametrize(("path", "prompt"), [(COMPLETIONS, {"prompt": "x"}), (CHAT, {"messages": TURN})])
async def test_parameters_that_ask_for_nothing_are_let_through(
    client: httpx.AsyncClient, path: str, prompt: dict[str, Any]
) -> None:
    answer = await client.post(path, json={"model": "tiny", "max_tokens": 1, **prompt, **NEUTRAL})
    assert answer.status_code == 200, answer.text


async def test_a_prompt_over_the_context_is_refused_with_openais_code(client: httpx.AsyncClient) -> None:
    answer = await client.post(COMPLETIONS, json={"model": "tiny", "prompt": [5] * 2048})
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "context_length_exceeded"


@pytest.mark.parametrize(("words", "tokens"), [(9_000, "9001"), (200_000, "over 2047")])
async def test_a_huge_text_is_refused(client: httpx.AsyncClient, words: int, tokens: str) -> None:
    answer = await client.post(COMPLETIONS, json={"model": "tiny", "prompt": "word " * words})
    assert answer.status_code == 400
    assert f"{tokens} tokens, allowed are 2047" in error_of(answer)["message"]


async def test_a_body_over_the_limit_is_refused(client_of: Any, make_app: Any) -> None:
    async with client_of(make_app(max_body_bytes=1000)) as client:
        answer = await client.post(COMPLETIONS, json={"model": "tiny", "prompt": "x" * 1000})
    assert answer.status_code == 413
    assert "over 1000 bytes" in error_of(answer)["message"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_other_content_types_are_refused(client: httpx.AsyncClient, kind: str | None) -> None:
    answer = await client.post(COMPLETIONS, content=b"{}", headers={} if kind is None else {"content-type": kind})
    assert answer.status_code == 415
    assert "Content-Type: application/json" in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", COMPLETIONS, 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/jobs/job-77", 404),
        ("DELETE", "/v1/jobs/job-77", 404),
        ("GET", "/v1/jobs?limit=-1", 400),
        ("GET", "/v1/jobs?limit=many", 400),
        ("GET", "/v1/models/%ff%00", 404),
    ],
)
async def test_paths_and_methods_that_do_not_exist(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    error_of(answer)


async def test_a_wrong_method_is_told_every_right_one(client: httpx.AsyncClient) -> None:
    answer = await client.put("/v1/jobs")
    assert answer.headers["allow"] == "GET, POST"


async def test_a_model_without_tokenizer_takes_token_ids_only(client_of: Any, make_app: Any) -> None:
    async with client_of(make_app(text=False)) as client:
        text = await client.post(COMPLETIONS, json={"model": "tiny", "prompt": "x"})
        chat = await client.post(CHAT, json={"model": "tiny", "messages": TURN})
        ids = await client.post(
            COMPLETIONS, json={"model": "tiny", "prompt": [1], "max_tokens": 2, "seed": 0, "return_token_ids": True}
        )
    assert (error_of(text)["code"], error_of(chat)["code"]) == ("no_tokenizer", "no_chat_template")
    assert ids.json()["choices"][0]["token_ids"] == [68, 69]
    assert ids.json()["choices"][0]["text"] == ""


async def test_a_refusal_of_the_gateway_keeps_its_status(client: httpx.AsyncClient, gateway: FakeGateway) -> None:
    gateway.script = lambda request: Script([], refusal=ServingError(503, "no instance is ready", retry_after_s=2))
    answer = await client.post(COMPLETIONS, json={"model": "tiny", "prompt": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert error_of(answer)["type"] == "overloaded_error"


async def test_a_fault_of_our_own_is_a_500_without_details(
    make_app: Callable[[], FastAPI], gateway: FakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: object) -> Script:
        raise RuntimeError("secret")

    gateway.script = broken
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://front.door") as client:
        answer = await client.post(COMPLETIONS, json={"model": "tiny", "prompt": "x"})
    assert answer.status_code == 500
    assert error_of(answer)["message"] == "internal error; the server's log has the details"
    assert "secret" in caplog.text


NAMES = sorted(
    {name for _, fields in WRONG for name in fields} | {"model", "prompt", "messages", "logprobs"} | set(NEUTRAL)
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([COMPLETIONS, CHAT]), st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4))
async def test_no_json_makes_the_server_fail(client: httpx.AsyncClient, path: str, fields: dict[str, Any]) -> None:
    prompt = {"prompt": [1]} if path == COMPLETIONS else {"messages": TURN}
    answer = await client.post(path, json={"model": "tiny", "max_tokens": 2} | prompt | fields)
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        error_of(answer)
