"""How many tokens a chunk brings, whatever the server says about it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.client.answer import Answer, AnswerError, error_message, settled_counts


def chunk(**choice: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "finish_reason": None, **choice}]}).encode()


def with_usage(output: int | None, *choices: dict[str, Any], prompt: int = 7) -> bytes:
    return json.dumps(
        {"choices": list(choices), "usage": {"prompt_tokens": prompt, "completion_tokens": output}}
    ).encode()


def test_usage_with_each_chunk_counts_its_tokens() -> None:
    answer = Answer("completions")
    text = {"text": "a", "finish_reason": None}
    assert [answer.take(with_usage(count, text)) for count in (1, 1, 4)] == [1, 0, 3]
    assert (answer.tokens, answer.output_tokens, answer.prompt_tokens, answer.counted) == (4, 4, 7, True)
    assert answer.take(with_usage(4)) == 0
    assert answer.counted


def test_a_token_without_text_yet_is_counted() -> None:
    answer = Answer("completions")
    assert answer.take(with_usage(1, {"text": "", "finish_reason": None})) == 1


def test_listed_tokens_are_counted() -> None:
    assert Answer("completions").take(chunk(text="ab", token_ids=[5, 6])) == 2
    assert Answer("completions").take(chunk(text="ab", logprobs={"tokens": ["a", "b", "c"]})) == 3
    assert Answer("chat").take(chunk(delta={"content": "ab"}, logprobs={"content": [{"token": "a"}]})) == 1


def test_without_counts_each_chunk_with_text_is_one_token() -> None:
    answer = Answer("chat")
    deltas = [{"role": "assistant", "content": ""}, {"content": "a"}, {"reasoning_content": "b"}, {}]
    assert [answer.take(chunk(delta=delta)) for delta in deltas] == [0, 1, 1, 0]
    assert not answer.counted
    assert answer.take(with_usage(9)) == 0
    assert (answer.tokens, answer.output_tokens) == (2, 9)


def test_a_final_usage_beside_the_last_text_is_no_count_of_its_chunk() -> None:
    answer = Answer("completions")
    answer.take(chunk(text="a"))
    assert answer.take(with_usage(30, {"text": "b", "finish_reason": "stop"})) == 1


def test_a_chunk_that_only_ends_the_answer_is_no_token() -> None:
    answer = Answer("completions")
    assert answer.take(chunk(text="", finish_reason="stop")) == 0
    assert answer.ended
    assert answer.finish_reason == "stop"


def test_null_usage_says_nothing() -> None:
    answer = Answer("completions")
    assert answer.take(json.dumps({"choices": [{"text": "a"}], "usage": None}).encode()) == 1
    assert answer.output_tokens is None


def test_done_ends_an_answer() -> None:
    answer = Answer("chat")
    assert not answer.ended
    assert answer.take(b"[DONE]") == 0
    assert answer.ended


def test_texts_are_kept_where_asked_for() -> None:
    kept, not_kept = Answer("chat", keep_text=True), Answer("chat")
    for answer in (kept, not_kept):
        answer.take(chunk(delta={"content": "a"}))
        answer.take(chunk(delta={"content": "b"}))
    assert (kept.texts, not_kept.texts) == (["a", "b"], [])


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"error": {"message": "out of  memory\n", "type": "x"}}, "out of memory"),
        ({"error": "no"}, "no"),
        ({"error": {"code": 3}}, '{"code": 3}'),
        ({"error": ["odd"]}, '["odd"]'),
    ],
)
def test_an_error_in_the_stream_is_told(sent: Any, message: str) -> None:
    with pytest.raises(AnswerError) as caught:
        Answer("completions").take(json.dumps(sent).encode())
    assert (caught.value.kind, str(caught.value)) == ("stream_error", message)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"nonsense", b"\xff\xfe", b"[]", b"3", b"null", b'"text"', b"{", b"[" * 100_000),
        *(b'{"choices": 3}', b'{"choices": {"a": 1}}', b'{"choices": ["a"]}', b'{"choices": [{}]}'),
        *(b'{"choices": [{"text": 3}]}', b'{"choices": [{"text": "a", "finish_reason": 4}]}'),
        *(b'{"choices": [{"text": "a", "token_ids": "ab"}]}', b'{"choices": [{"text": "a", "logprobs": 3}]}'),
        *(b'{"choices": [], "usage": 3}', b'{"choices": [], "usage": {"completion_tokens": -1}}'),
        *(b'{"choices": [], "usage": {"completion_tokens": true}}', b'{"usage": {"prompt_tokens": 1.5}}'),
        b'{"choices": [], "usage": {"completion_tokens": 1e400}}',
    ],
)
def test_what_is_no_chunk_is_malformed(data: bytes) -> None:
    with pytest.raises(AnswerError) as caught:
        Answer("completions").take(data)
    assert caught.value.kind == "malformed"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "text", "delta", "content", "usage", "completion_tokens", "error", "logprobs"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30), max_size=4))
def test_anything_is_an_answer_or_an_answer_error(sent: list[bytes]) -> None:
    answer = Answer("chat")
    refused = 0
    for data in sent:
        try:
            assert answer.take(data) >= 0
        except AnswerError:
            refused += 1
    assert answer.tokens >= 0
    assert refused <= len(sent)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(0, 100))
def test_settled_counts_add_up_to_the_total(counts: list[int], total: int) -> None:
    settled = settled_counts(counts, total)
    assert sum(settled) == total
    assert len(settled) == len(counts)
    assert min(settled) >= 0
    assert total == 0 or settled[0] >= 1
    assert max(settled) - min(settled) <= 1 or settled == counts


def test_counts_that_add_up_stay_as_they_are() -> None:
    assert settled_counts([1, 3, 1], 5) == [1, 3, 1]
    assert settled_counts([1, 1, 1], 7) == [3, 2, 2]


def test_a_long_message_is_cut() -> None:
    assert len(error_message("x" * 1000)) == 200
