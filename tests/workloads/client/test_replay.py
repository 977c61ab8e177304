"""A replay against a local server that answers well, and against ones that do not."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from workloads.client.asks import Labels
from workloads.client.errors import ReplayError
from workloads.client.prompts import Vocabulary
from workloads.client.replay import Replayed, replay
from workloads.client.settings import ReplaySettings
from workloads.trace import Trace

Serving = Callable[..., Any]


def trace(requests: int = 4, prompt: int = 8, output: int = 3, gap_s: float = 0.0, start_s: float = 0.0) -> Trace:
    lengths = np.full(requests, prompt, np.int32), np.full(requests, output, np.int32)
    return Trace("t", start_s + gap_s * np.arange(requests, dtype=np.float64), *lengths)


def outcomes(found: Replayed) -> set[tuple[str, str | None]]:
    return {(record.outcome, record.error) for record in found.records}


def test_a_good_server_gives_every_token(serving: Serving) -> None:
    server = serving()
    found = replay(trace(20, output=5), ReplaySettings(server.url))
    assert outcomes(found) == {("finished", None)}
    assert [record.served_output_tokens for record in found.records] == [5] * 20
    assert [record.counts() for record in found.records] == [[1] * 5] * 20
    for record in found.records:
        assert record.sent_s is not None
        assert [record.sent_s, *record.times_s] == sorted([record.sent_s, *record.times_s])
    assert found.tokens == 100
    assert found.cpu_s > 0
    assert found.model.max_model_tokens == 4096
    assert not found.interrupted


def test_requests_ask_for_exactly_the_trace(serving: Serving) -> None:
    server = serving()
    ids = ((5, 6), (5, 7), (5, 6))
    recorded = Trace(
        "t",
        np.zeros(3),
        np.array([8, 11, 9]),
        np.array([2, 3, 4]),
        prefix_ids=ids,
        prefix_block_tokens=4,
        tenant=("a", "", "zürich"),
        session_id=("s", "s", "s"),
    )
    replay(recorded, ReplaySettings(server.url, labels=Labels(slo_class=None), api_key="secret"))
    posts = sorted(server.posts, key=lambda exchange: len(exchange.json()["prompt"]))
    bodies = [exchange.json() for exchange in posts]
    assert [len(body["prompt"]) for body in bodies] == [8, 9, 11]
    assert bodies[0]["prompt"] == bodies[1]["prompt"][:8]
    assert bodies[2]["prompt"][:4] == bodies[0]["prompt"][:4]
    assert bodies[2]["prompt"][4:8] != bodies[0]["prompt"][4:8]
    assert [body["max_tokens"] for body in bodies] == [2, 4, 3]
    assert {(body["model"], body["temperature"], body["stream"], body["ignore_eos"]) for body in bodies} == {
        ("tiny", 0, True, True)
    }
    assert bodies[0]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert {exchange.path for exchange in posts} == {"/v1/completions"}
    assert {exchange.headers["authorization"] for exchange in server.seen} == {"Bearer secret"}
    assert [exchange.headers.get("x-semiflow-tenant") for exchange in posts] == ["a", "z%C3%BCrich", None]
    assert all("x-semiflow-slo-class" not in exchange.headers for exchange in posts)
    assert {exchange.headers["x-semiflow-session"] for exchange in posts} == {"s"}


def test_what_a_server_refuses_can_be_left_out(serving: Serving) -> None:
    server = serving()
    settings = ReplaySettings(server.url, ignore_eos=False, usage="none", extra_body={"temperature": 1, "top_k": 3})
    replay(trace(1), settings)
    body = server.posts[0].json()
    assert "ignore_eos" not in body
    assert "stream_options" not in body
    assert (body["temperature"], body["top_k"]) == (1, 3)


def test_a_chat_carries_text_and_counts_by_chunks(serving: Serving) -> None:
    async def chat(exchange: Any) -> None:
        usage = {"prompt_tokens": 11, "completion_tokens": 3}
        role = exchange.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        texts = [exchange.chunk(text) for text in "ab"]
        end = exchange.event({"choices": [], "usage": usage})
        await exchange.stream(role, *texts, exchange.chunk("c", "length"), end, exchange.event("[DONE]"))

    server = serving(chat, trial_is_good=False)
    found = replay(trace(2), ReplaySettings(f"{server.url}/v1/", prompts="chat", keep_texts=True))
    body = server.posts[0].json()
    assert server.posts[0].path == "/v1/chat/completions"
    assert len(body["messages"][0]["content"].split()) == 8
    assert "approximate" in found.lengths
    assert [record.counts() for record in found.records] == [[1, 1, 1]] * 2
    assert [record.served_prompt_tokens for record in found.records] == [11, 11]
    assert [not record.answer.counted for record in found.records] == [True, True]
    assert ["".join(record.answer.texts) for record in found.records] == ["abc", "abc"]


def test_a_replay_starts_with_the_first_arrival(serving: Serving) -> None:
    found = replay(trace(3, gap_s=0.01, start_s=1e6), ReplaySettings(serving().url))
    assert [record.scheduled_s for record in found.records] == pytest.approx([0.0, 0.01, 0.02])


def test_warmup_requests_stay_out_of_the_results(serving: Serving) -> None:
    server = serving()
    found = replay(trace(2), ReplaySettings(server.url, warmup_requests=3))
    assert (len(server.posts), len(found.records)) == (5, 2)


def test_a_warmup_that_fails_altogether_stops_the_replay(serving: Serving) -> None:
    async def refuse(exchange: Any) -> None:
        await exchange.whole(500, {"error": {"message": "out of order"}})

    with pytest.raises(ReplayError, match="no warm-up request finished: http_500: out of order"):
        replay(trace(), ReplaySettings(serving(refuse).url, warmup_requests=2))


def test_idle_connections_are_used_again(serving: Serving) -> None:
    server = serving()
    replay(trace(30, gap_s=0.01), ReplaySettings(server.url))
    assert server.connections < 20


def test_many_at_once_each_get_a_connection(serving: Serving) -> None:
    waiting: list[Any] = []
    everyone = asyncio.Event()

    async def wait_for_all(exchange: Any) -> None:
        waiting.append(exchange)
        if len(waiting) == 150:
            everyone.set()
        await everyone.wait()
        await exchange.tokens()

    found = replay(trace(150), ReplaySettings(serving(wait_for_all).url, timeout_s=30))
    assert outcomes(found) == {("finished", None)}


@pytest.mark.parametrize(("choice", "sent", "longest"), [("refuse", 1, 20), ("clip", 2, 90)])
def test_requests_over_the_servers_context(choice: Any, sent: int, longest: int, serving: Serving) -> None:
    server = serving(models={"data": [{"id": "tiny", "max_model_len": 100, "vocab_size": 512}]})
    long = Trace("t", np.zeros(2), np.array([20, 500]), np.array([3, 10]))
    found = replay(long, ReplaySettings(server.url, too_long=choice))
    assert len(server.posts) == sent
    assert max(len(exchange.json()["prompt"]) for exchange in server.posts) == longest
    record = found.records[1]
    if choice == "refuse":
        assert (record.outcome, record.error, record.sent_s) == ("rejected", "too_long", None)
        assert record.message == "510 tokens, the server takes 100"
    else:
        assert (record.outcome, record.prompt_tokens) == ("finished", 90)
        assert "1 prompts" in found.trace.metadata["transformations"]


async def _cut_head(exchange: Any) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nContent-")
    exchange.writer.close()


async def _no_answer(exchange: Any) -> None:
    exchange.writer.close()


async def _cut_chunk(exchange: Any) -> None:
    await exchange.head()
    exchange.writer.write(b"ff\r\ndata: ")
    exchange.writer.close()


async def _closes_early(exchange: Any) -> None:
    await exchange.stream(exchange.chunk("a"), exchange.chunk("b"))


async def _error_in_stream(exchange: Any) -> None:
    await exchange.stream(exchange.chunk("a"), exchange.event({"error": {"message": "instance lost"}}))


async def _not_http(exchange: Any) -> None:
    exchange.writer.write(b"SSH-2.0-x\r\n\r\n")
    await exchange.writer.drain()


async def _html(exchange: Any) -> None:
    await exchange.head(content_type="text/html")
    await exchange.piece(b"<html>")
    await exchange.end()


async def _whole_json(exchange: Any) -> None:
    await exchange.whole(200, {"choices": [{"text": "aaa"}]})


async def _wrong_types(exchange: Any) -> None:
    await exchange.stream(exchange.event({"choices": [{"text": ["a"]}]}))


async def _invalid_utf8(exchange: Any) -> None:
    await exchange.stream(b'data: {"choices": [{"text": "\xff\xfe"}]}\n\n')


async def _empty(exchange: Any) -> None:
    await exchange.stream(exchange.chunk("", "stop"), exchange.event("[DONE]"))


async def _stalls(exchange: Any) -> None:
    await exchange.head()
    await exchange.piece(exchange.chunk("a"))
    await asyncio.Event().wait()


async def _busy(exchange: Any) -> None:
    await exchange.whole(429, {"error": {"message": "slow down", "type": "rate_limit"}})


async def _odd_error(exchange: Any) -> None:
    await exchange.whole(500, b"\xff<html>broken\n")


async def _redirects(exchange: Any) -> None:
    exchange.writer.write(b"HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")


MISBEHAVIOURS: list[tuple[Any, str, str]] = [
    (_cut_head, "failed", "closed"),
    (_no_answer, "failed", "closed"),
    (_cut_chunk, "failed", "closed"),
    (_closes_early, "failed", "closed"),
    (_error_in_stream, "failed", "stream_error"),
    (_not_http, "failed", "closed"),
    (_html, "failed", "malformed"),
    (_whole_json, "failed", "malformed"),
    (_wrong_types, "failed", "malformed"),
    (_invalid_utf8, "failed", "malformed"),
    (_empty, "failed", "empty"),
    (_stalls, "failed", "timeout"),
    (_busy, "rejected", "http_429"),
    (_odd_error, "rejected", "http_500"),
    (_redirects, "rejected", "http_307"),
]


@pytest.mark.parametrize(
    ("script", "outcome", "error"), MISBEHAVIOURS, ids=lambda value: getattr(value, "__name__", "")
)
def test_whatever_a_server_does_is_a_counted_error(script: Any, outcome: str, error: str, serving: Serving) -> None:
    found = replay(trace(3), ReplaySettings(serving(script).url, timeout_s=0.5))
    assert outcomes(found) == {(outcome, error)}
    assert all(record.message is not None and record.message.isprintable() for record in found.records)
    assert all(record.ended_s is not None for record in found.records)


@pytest.mark.parametrize(
    ("script", "outcome", "error"), MISBEHAVIOURS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_server_that_fails_its_trial_gets_no_replay(script: Any, outcome: str, error: str, serving: Serving) -> None:
    server = serving(script, trial_is_good=False)
    with pytest.raises(
        ReplayError, match=r"^http://127\.0\.0\.1:\d+: a trial request to /v1/completions failed: "
    ) as caught:
        replay(trace(), ReplaySettings(server.url, timeout_s=0.5))
    assert str(caught.value).isprintable()
    assert server.posts == []


async def _no_done(exchange: Any) -> None:
    await exchange.stream(exchange.chunk("a"), exchange.chunk("b", "length"))


async def _done_only(exchange: Any) -> None:
    await exchange.stream(exchange.chunk("a"), exchange.chunk("b"), exchange.event("[DONE]"))


async def _done_without_blank_line(exchange: Any) -> None:
    await exchange.stream(exchange.chunk("a"), exchange.chunk("b"), b"data: [DONE]\n")


async def _stays_open_after_done(exchange: Any) -> None:
    await exchange.head()
    for data in (exchange.chunk("a"), exchange.chunk("b"), exchange.event("[DONE]")):
        await exchange.piece(data)
    await asyncio.Event().wait()


async def _torn(exchange: Any) -> None:
    whole = b": hi\r\n" + exchange.chunk("ü") + exchange.chunk("b", "length") + exchange.event("[DONE]")
    await exchange.head()
    for place in range(len(whole)):
        await exchange.piece(whole[place : place + 1])
    await exchange.end()


async def _until_close(exchange: Any) -> None:
    exchange.writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"
    )
    exchange.writer.write(exchange.chunk("a") + exchange.chunk("b", "length"))
    await exchange.writer.drain()
    exchange.writer.close()


@pytest.mark.parametrize(
    "script",
    [_no_done, _done_only, _done_without_blank_line, _stays_open_after_done, _torn, _until_close],
    ids=lambda script: script.__name__,
)
def test_answers_with_loose_ends_count(script: Any, serving: Serving) -> None:
    found = replay(trace(2, output=2), ReplaySettings(serving(script).url, timeout_s=20))
    assert outcomes(found) == {("finished", None)}
    assert [record.served_output_tokens for record in found.records] == [2, 2]


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(ReplayError, match=r"http://127\.0\.0\.1:1: no connection \(.*\); is the server up"):
        replay(trace(), ReplaySettings("http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("settings", "wanted", "expected"),
    [
        ({"models_status": 401, "models": {"error": {"message": "no key"}}}, None, "401: no key; give the environment"),
        ({"models_status": 404, "models": {}}, None, r"lists no model \(status 404\); name it with --model"),
        ({"models": {"data": [{"id": "a"}, {"id": "b"}]}}, None, "serves several models, name one with --model: a, b"),
        ({}, "huge", "no model 'huge'; allowed: tiny"),
        ({"models": {"data": [{"id": "a"}]}}, None, "does not say how large the vocabulary of a is.*--vocab"),
        ({"models": {"data": [{"id": "a", "vocab_size": 9}]}}, None, "vocabulary of 9 token ids"),
        ({"models": {"data": "?"}}, None, "lists no model"),
        ({"models": b"\xff"}, None, "lists no model"),
        ({"models": {"data": [{"id": 3}, {"id": "a"}]}}, None, "vocabulary of a is"),
    ],
)
def test_what_the_list_of_models_says_is_checked(
    settings: dict[str, Any], wanted: str | None, expected: str, serving: Serving
) -> None:
    server = serving(**settings)
    with pytest.raises(ReplayError, match=expected):
        replay(trace(), ReplaySettings(server.url, model=wanted))
    assert [exchange for exchange in server.seen if exchange.method == "POST"] == []


def test_a_server_without_a_list_of_models_can_be_named_everything(serving: Serving) -> None:
    server = serving(models_status=404, models={})
    settings = ReplaySettings(server.url, model="mine", vocabulary=Vocabulary(50, 100))
    found = replay(trace(), settings)
    assert outcomes(found) == {("finished", None)}
    assert {token for exchange in server.posts for token in exchange.json()["prompt"]} <= set(range(50, 100))
    assert {exchange.json()["model"] for exchange in server.posts} == {"mine"}


def test_special_tokens_never_occur_in_prompts(serving: Serving) -> None:
    server = serving(models={"data": [{"id": "a", "vocab_size": 20, "special_token_ids": [0, 3, 19]}]})
    replay(trace(prompt=500), ReplaySettings(server.url))
    assert {token for exchange in server.posts for token in exchange.json()["prompt"]} == set(range(20)) - {0, 3, 19}


def test_equal_seeds_ask_equal_prompts(serving: Serving) -> None:
    def asked(seed: int) -> list[str]:
        server = serving()
        replay(trace(), replace(ReplaySettings(server.url), prompt_seed=seed))
        return sorted(json.dumps(exchange.json()["prompt"]) for exchange in server.posts)

    assert asked(1) == asked(1) != asked(2)


def test_the_client_keeps_to_its_cores_while_it_replays(serving: Serving) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    kept: set[int] = set()
    settings = ReplaySettings(serving().url, cores=(core,))
    replay(trace(), settings, lambda *_: kept.update(os.sched_getaffinity(0)))
    assert kept == {core}
    assert os.sched_getaffinity(0) == before


def test_cores_that_are_not_there_are_refused() -> None:
    with pytest.raises(ReplayError, match=r"client cores \[4095\] are not allowed; allowed: any of \[0"):
        replay(trace(), ReplaySettings("http://127.0.0.1:1", cores=(4095,)))


def test_in_a_closed_loop_a_turn_is_sent_its_think_time_after_the_answer(serving: Serving) -> None:
    parents, thinks = np.array([-1, 0, -1, 1]), np.array([0.0, 0.05, 0.0, 0.02])
    recorded = replace(trace(4), parent_row=parents, think_s=thinks)
    found = replay(recorded, ReplaySettings(serving().url, closed_loop=True))
    assert outcomes(found) == {("finished", None)}
    by_row = {record.row: record for record in found.records}
    for child, parent in ((1, 0), (3, 1)):
        ended_s = by_row[parent].ended_s
        assert ended_s is not None
        assert by_row[child].scheduled_s == pytest.approx(ended_s + thinks[child])
        assert by_row[child].arrival_s >= by_row[child].scheduled_s - 1e-3


def test_in_a_closed_loop_a_session_goes_on_after_a_request_that_the_server_has_no_room_for(serving: Serving) -> None:
    parents, thinks = np.array([-1, 0, 1]), np.array([0.0, 0.01, 0.01])
    recorded = replace(trace(3), prompt_tokens=np.array([8, 5000, 8], np.int32), parent_row=parents, think_s=thinks)
    found = replay(recorded, ReplaySettings(serving().url, closed_loop=True))
    assert [record.outcome for record in found.records] == ["finished", "rejected", "finished"]
    assert found.records[2].scheduled_s == pytest.approx(found.records[1].scheduled_s + 0.01)
