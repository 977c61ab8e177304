"""Bailian JSONL: blocks hashed one by one, trees of chats, parents that are not there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workloads.errors import TraceError
from workloads.formats import Reading, parse_bytes
from workloads.settle import Invalid
from workloads.trace import Trace

ROW: dict[str, Any] = {
    "chat_id": 1,
    "parent_chat_id": -1,
    "timestamp": 0.5,
    "input_length": 40,
    "output_length": 7,
    "type": "text",
    "turn": 1,
    "hash_ids": [10, 11, 12],
}


def read(*changes: dict[str, Any], invalid: Invalid = "error", reading: Reading | None = None) -> Trace:
    lines = "\n".join(json.dumps(ROW | change) for change in changes).encode()
    return parse_bytes("q.jsonl", lines, invalid, reading or Reading())


def test_blocks_hashed_one_by_one_become_chained_ids() -> None:
    trace = read({}, {"chat_id": 2, "hash_ids": [10, 12, 11]}, {"chat_id": 3, "hash_ids": [10, 11, 12]})
    assert trace.prefix_ids == ((0, 1, 2), (0, 3, 4), (0, 1, 2))
    assert trace.prefix_block_tokens == 16


@pytest.mark.parametrize("ids", [[1, 2], [1, 2, 3]])
def test_a_partial_last_block_may_have_an_id(ids: list[int]) -> None:
    assert len(read({"hash_ids": ids})) == 1


def test_a_session_is_the_tree_of_its_root_chat() -> None:
    trace = read(
        {},
        {"chat_id": 7},
        {"chat_id": 2, "parent_chat_id": 1, "turn": 2},
        {"chat_id": 3, "parent_chat_id": 2, "turn": 3},
        {"chat_id": 4, "parent_chat_id": 1, "turn": 2},
    )
    assert trace.session_id == ("1", "7", "1", "1", "1")
    assert trace.parent_row is not None
    assert trace.turn is not None
    assert (trace.parent_row.tolist(), trace.turn.tolist()) == ([-1, -1, 0, 2, 0], [0, 0, 1, 2, 1])
    assert "open loop" in trace.metadata["turns"]


def test_a_parent_that_is_missing_is_said() -> None:
    trace = read({}, {"chat_id": 2, "parent_chat_id": 99, "turn": 2})
    assert "1 turns follow a request that is not in this trace (first: line 2)" in trace.metadata["missing_parents"]
    assert trace.session_id == ("1", "2")
    assert "missing_parents" not in read({}).metadata


def test_a_parent_that_is_dropped_is_missing() -> None:
    trace = read({"output_length": 0}, {"chat_id": 2, "parent_chat_id": 1, "turn": 2}, invalid="drop")
    assert trace.metadata["rows_dropped"] == "1"
    assert "missing_parents" in trace.metadata


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hash_ids": [1]}, r"column prefix_ids|hash_ids.*'1 ids'.*2 to 3, one per 16 of 40"),
        ({"hash_ids": [1, 2, 3, 4]}, "'4 ids'"),
        ({"hash_ids": [1, True]}, "hash_ids.*True"),
        ({"chat_id": -1}, "chat_id: -1"),
        ({"turn": 0}, "turn: 0"),
        ({"parent_chat_id": None}, "parent_chat_id: None"),
        ({"timestamp": "now"}, "timestamp: 'now'"),
        ({"timestamp": -1}, r"arrival_s \(timestamp\): -1"),
        ({"input_length": 0}, "input_length: 0"),
        ({"chat_id": 5}, "chat_id: 5.*each once; line 1 has it"),
    ],
)
def test_a_bad_row_is_refused_or_dropped_and_counted(change: dict[str, Any], message: str) -> None:
    rows = {"chat_id": 5}, {"chat_id": 6} | change
    with pytest.raises(TraceError, match=message):
        read(*rows)
    trace = read(*rows, invalid="drop")
    assert (len(trace), trace.metadata["rows_dropped"]) == (1, "1")


def test_another_block_size_is_read_only_where_it_is_stated() -> None:
    rows = ({"hash_ids": [1]},)
    with pytest.raises(TraceError, match="1 ids"):
        read(*rows)
    assert read(*rows, reading=Reading(block_tokens=64)).prefix_block_tokens == 64
