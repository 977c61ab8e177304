"""Mooncake JSONL written and read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from workloads.catalog import open_trace
from workloads.errors import TraceError
from workloads.formats import Reading, open_file
from workloads.formats.mooncake_writer import lost, write
from workloads.trace import Trace


def test_what_is_written_is_read_again(small_trace: Trace, tmp_path: Path) -> None:
    write(small_trace, tmp_path / "t.jsonl", 4)
    again = open_file(tmp_path / "t.jsonl", reading=Reading(block_tokens=4))
    assert again.arrival_s.tolist() == small_trace.arrival_s.tolist()
    assert again.prompt_tokens.tolist() == small_trace.prompt_tokens.tolist()
    assert again.output_tokens.tolist() == small_trace.output_tokens.tolist()
    assert again.prefix_ids is not None
    assert small_trace.prefix_ids is not None
    own = [len(ids) for ids in small_trace.prefix_ids]
    assert [ids[:known] for ids, known in zip(again.prefix_ids, own, strict=True)] == list(small_trace.prefix_ids)
    extra = [block for ids, known in zip(again.prefix_ids, own, strict=True) for block in ids[known:]]
    assert len(set(extra)) == len(extra) > 0, "blocks that were never shared stay so"


def test_whole_milliseconds_are_whole_numbers(tmp_path: Path) -> None:
    trace = Trace("t", np.array([0.0, 1.5, 2.0000005]), np.array([1, 600, 3]), np.array([1, 1, 1]))
    write(trace, tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["timestamp"] for row in rows] == [0, 1500, 2000.0005]
    assert [row["hash_ids"] for row in rows] == [[0], [1, 2], [3]]


def test_another_block_size_is_refused_with_the_remedies(small_trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"prefix ids of 4 tokens \(allowed: 512\); convert .*--block-tokens 512"):
        write(small_trace, tmp_path / "t.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_what_the_format_cannot_hold_is_named(small_trace: Trace) -> None:
    assert lost(small_trace) == ["session_id", "tenant", "slo_class", "turn", "parent_row", "think_s"]


def test_a_missing_folder_is_one_line(small_trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="the trace cannot be written: No such file"):
        write(small_trace, tmp_path / "no" / "t.jsonl", 4)


def test_a_public_trace_comes_back_the_same(traces_folder: Path, tmp_path: Path) -> None:
    trace = open_trace("mooncake_synthetic").head(300)
    write(trace, tmp_path / "t.jsonl")
    again = open_file(tmp_path / "t.jsonl")
    assert again.prefix_ids == trace.prefix_ids
    assert again.arrival_s.tolist() == trace.arrival_s.tolist()
