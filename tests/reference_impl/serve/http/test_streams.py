"""What happens in mid-answer: clients that leave or do not read, time limits, failures, slow and fast tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from reference_impl.serve.http import event_stream
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.testing import FakeGateway, Script

pytestmark = pytest.mark.anyio
BODY = {"model": "tiny", "prompt": [5], "max_tokens": 6, "seed": 0}
STREAM = BODY | {"stream": True}
LONG = {"max_tokens": 2000}
Call = Callable[..., Any]


def events(text: str) -> list[Any]:
    """Of a stream, without the last one if that is [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def test_each_token_is_one_write_and_the_end_comes_with_the_last(make_app: Call, call_bare: Call) -> None:
    call = call_bare(make_app(), "/v1/completions", STREAM | {"stream_options": {"include_usage": True}})
    await call.task
    assert call.writes == 6
    assert call.text.endswith("data: [DONE]\n\n")
    assert [event["choices"][0]["text"] for event in events(call.text)[:-1]] == list("bcdefg")
    assert call.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_client_that_lags_gets_what_gathered_in_one_write(make_app: Call, call_bare: Call) -> None:
    call = call_bare(make_app(), "/v1/completions", STREAM)
    await call.until(lambda: call.writes == 1)
    call.reads.clear()
    for _ in range(50):
        await asyncio.sleep(0)
    call.reads.set()
    await call.task
    assert call.writes == 3
    assert "".join(event["choices"][0]["text"] for event in events(call.text)) == "bcdefg"


@pytest.mark.parametrize("body", [BODY, STREAM, STREAM | {"n": 3}, BODY | {"n": 3}])
async def test_a_client_that_leaves_cancels_its_sequences(
    make_app: Call, call_bare: Call, gateway: FakeGateway, body: dict[str, Any]
) -> None:
    call = call_bare(make_app(), "/v1/completions", body | LONG)
    await call.until(lambda: gateway.running > 0)
    call.leave()
    await call.task
    assert set(gateway.ended.values()) == {"client_left"}
    await call.until(lambda: gateway.running == 0)


async def test_a_client_that_leaves_before_the_first_token_cancels_too(
    make_app: Call, call_bare: Call, gateway: FakeGateway
) -> None:
    gateway.script = lambda request: Script([68] * 5, hangs_after=0)
    call = call_bare(make_app(), "/v1/completions", STREAM)
    await call.until(lambda: gateway.running > 0)
    call.leave()
    await call.task
    assert gateway.ended == {0: "client_left"}


async def test_a_cancelled_handler_cancels_its_sequence(make_app: Call, call_bare: Call, gateway: FakeGateway) -> None:
    call = call_bare(make_app(), "/v1/completions", STREAM | LONG)
    await call.until(lambda: call.writes > 0)
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert gateway.ended == {0: "cancelled"}


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_a_failure_before_the_first_token_has_its_http_status(
    make_app: Call, call_bare: Call, gateway: FakeGateway, body: dict[str, Any]
) -> None:
    gateway.script = lambda request: Script([68] * 5, fails_after=0)
    call = call_bare(make_app(), "/v1/completions", body)
    await call.task
    assert call.status == 503
    assert json.loads(call.text)["error"]["code"] == "instance_failed"


async def test_a_failure_in_mid_stream_is_one_event_and_the_end(
    make_app: Call, call_bare: Call, gateway: FakeGateway
) -> None:
    gateway.script = lambda request: Script([68] * 6, fails_after=2)
    call = call_bare(make_app(), "/v1/completions", STREAM)
    await call.task
    *chunks, last = events(call.text)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["b", "b"]
    assert last["error"]["message"] == "instance 0 failed"
    assert "[DONE]" not in call.text
    assert call.sent[-1]["more_body"] is False


async def test_one_choice_that_fails_ends_all_with_one_error(
    make_app: Call, call_bare: Call, gateway: FakeGateway
) -> None:
    scripts = iter([Script([68] * 900), Script([69] * 900, fails_after=2)])
    gateway.script = lambda request: next(scripts)
    call = call_bare(make_app(), "/v1/completions", STREAM | LONG | {"n": 2})
    await call.task
    assert sum("error" in event for event in events(call.text)) == 1
    assert gateway.ended == {0: "failed"}
    await call.until(lambda: gateway.running == 0)


async def test_sequences_already_sent_off_are_cancelled_where_another_is_refused(
    make_app: Call, call_bare: Call, gateway: FakeGateway
) -> None:
    scripts = iter([Script([68] * 9), Script([], refusal=ServingError(503, "no room"))])
    gateway.script = lambda request: next(scripts)
    call = call_bare(make_app(), "/v1/completions", BODY | {"n": 2})
    await call.task
    assert call.status == 503
    assert list(gateway.ended) == [0]


async def test_the_time_limit_is_a_504(make_app: Call, call_bare: Call, gateway: FakeGateway) -> None:
    gateway.script = lambda request: Script([68] * 5, hangs_after=0)
    call = call_bare(make_app(request_timeout_s=0.01), "/v1/completions", BODY)
    await call.task
    assert call.status == 504
    assert json.loads(call.text)["error"] == {
        "message": "not finished within 0.01 s, the time limit of a request",
        "type": "timeout_error",
        "param": None,
        "code": "timeout",
    }
    assert gateway.ended == {0: "timeout"}


async def test_the_time_limit_in_mid_stream_is_an_event(make_app: Call, call_bare: Call, gateway: FakeGateway) -> None:
    gateway.script = lambda request: Script([68] * 5, hangs_after=1)
    call = call_bare(make_app(request_timeout_s=0.05), "/v1/completions", STREAM)
    await call.task
    assert [("error" in event) for event in events(call.text)] == [False, True]


async def test_a_client_that_never_reads_is_given_up_on_after_the_time_limit(
    make_app: Call, call_bare: Call, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "STALLED_S", 0.01)
    gateway.script = lambda request: Script([68] * 5, hangs_after=1)
    call = call_bare(make_app(request_timeout_s=0.02), "/v1/completions", STREAM | LONG)
    call.reads.clear()
    await call.task
    assert gateway.ended == {0: "timeout"}


async def test_a_fault_of_our_own_in_mid_stream_is_an_event_too(
    make_app: Call, call_bare: Call, gateway: FakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.script = lambda request: Script([68, "no token", 69])  # type: ignore[list-item]
    call = call_bare(make_app(), "/v1/completions", STREAM)
    await call.task
    assert events(call.text)[-1]["error"]["code"] == "internal_error"
    assert "a stream failed" in caplog.text
    assert gateway.ended == {0: "failed"}


async def test_a_stream_that_just_stops_is_an_error(make_app: Call, call_bare: Call, gateway: FakeGateway) -> None:
    gateway.script = lambda request: Script([68] * 5, hangs_after=1)
    call = call_bare(make_app(), "/v1/completions", STREAM)
    await call.until(lambda: call.writes == 1)
    gateway.streams[0].cancel("somebody else")
    await call.task
    assert events(call.text)[-1]["error"]["code"] == "incomplete"


async def test_token_ids_come_with_the_text_where_asked_for(make_app: Call, call_bare: Call) -> None:
    call = call_bare(make_app(), "/v1/completions", STREAM | {"return_token_ids": True, "max_tokens": 2})
    await call.task
    first, second = (event["choices"][0] for event in events(call.text))
    assert (first["prompt_token_ids"], first["token_ids"], second["token_ids"]) == ([5], [68], [69])
    assert "prompt_token_ids" not in second


async def test_continuous_usage_counts_every_token(make_app: Call, call_bare: Call) -> None:
    options = {"stream_options": {"continuous_usage_stats": True}}
    call = call_bare(make_app(), "/v1/completions", STREAM | options)
    await call.task
    assert [event["usage"]["completion_tokens"] for event in events(call.text)] == [1, 2, 3, 4, 5, 6]


async def test_a_character_of_several_tokens_comes_whole_and_each_token_has_its_event(
    make_app: Call, call_bare: Call, gateway: FakeGateway, tokenizer: Any
) -> None:
    ids = tokenizer.encode("a\N{GRINNING FACE}b", special_tokens=False)
    gateway.script = lambda request: Script(ids)
    call = call_bare(make_app(), "/v1/completions", STREAM | LONG)
    await call.task
    texts = [event["choices"][0]["text"] for event in events(call.text)]
    assert len(texts) == len(ids)
    assert [text for text in texts if text] == ["a", "\N{GRINNING FACE}"]  # the last token ended it and is no text


async def test_nothing_of_a_stop_string_is_ever_streamed(make_app: Call, call_bare: Call, gateway: FakeGateway) -> None:
    call = call_bare(make_app(), "/v1/completions", STREAM | {"stop": ["efx", "fg"], "max_tokens": 20})
    await call.task
    assert [event["choices"][0]["text"] for event in events(call.text)] == ["b", "c", "d", "", "", "e"]
    assert events(call.text)[-1]["choices"][0]["finish_reason"] == "stop"
    assert gateway.ended == {0: None}


async def test_a_stop_string_ends_one_of_several_choices_whatever_is_underway(
    make_app: Call, call_bare: Call, gateway: FakeGateway
) -> None:
    call = call_bare(make_app(), "/v1/completions", STREAM | {"stop": "f", "n": 2, "max_tokens": 20})
    await call.until(lambda: call.writes >= 1)
    call.reads.clear()
    for _ in range(100):
        await asyncio.sleep(0)
    call.reads.set()
    await call.task
    choices = [event["choices"][0] for event in events(call.text)]
    assert "".join(choice["text"] for choice in choices if choice["index"] == 0) == "bcde"
    assert [choice["finish_reason"] for choice in choices].count("stop") >= 1
    assert sum(choice["finish_reason"] is not None for choice in choices) == 2


async def test_a_client_that_leaves_after_the_last_token_had_it_all(
    make_app: Call, call_bare: Call, gateway: FakeGateway
) -> None:
    call = call_bare(make_app(), "/v1/completions", STREAM | {"max_tokens": 1})
    call.reads.clear()
    await call.until(lambda: gateway.streams != [] and gateway.streams[0].over)
    call.leave()
    for _ in range(20):
        await asyncio.sleep(0)
    call.reads.set()
    await call.task
    assert "error" not in call.text
    assert call.text.count("[DONE]") == 1


async def test_a_body_that_does_not_come_is_a_408(make_app: Call, call_bare: Call) -> None:
    call = call_bare(make_app(request_timeout_s=0.02), "/v1/completions", STREAM, withheld=True)
    await call.task
    assert call.status == 408
    assert "did not arrive within 0.02 s" in json.loads(call.text)["error"]["message"]


async def test_clients_that_vanish_or_send_rubbish_leave_nothing_behind(
    make_app: Callable[[], FastAPI], serve: Call, gateway: FakeGateway
) -> None:
    """Over a real socket: half a request, rubbish, a stream whose reader closes."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    body = json.dumps(STREAM | LONG).encode()
    async with serve(make_app()) as url:
        port = int(url.rpartition(":")[2])
        for sent in (b"\x00\xff\x00rubbish\r\n\r\n", head % 5000 + b'{"model"', head % len(body) + body):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            await writer.drain()
            if sent.endswith(body):
                async with asyncio.timeout(5):
                    while gateway.running == 0:
                        await asyncio.sleep(0)
            writer.close()
        async with asyncio.timeout(5):
            while gateway.running or gateway.ended != {0: "client_left"}:
                await asyncio.sleep(0)
