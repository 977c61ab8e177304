"""Whatever the bytes: a reader gives a valid trace or a TraceError, in both ways of treating invalid rows."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.errors import TraceError
from workloads.formats import parse_bytes
from workloads.settle import Invalid
from workloads.trace import Trace

INVALID: st.SearchStrategy[Invalid] = st.sampled_from(["error", "drop"])
NAMES = st.sampled_from(["x.csv", "x.jsonl", "x.json", "x.parquet", "x.csv.gz", "x.tar", "x", ".gz", ""])

CSV_CELL = st.one_of(
    st.sampled_from(
        ["2023-11-16 18:15:46.6805900", "2024-05-10 00:00:00.009930+00:00", "0001-01-01 00:00:00", "", "-1"]
    ),
    st.integers(-5, 2**33).map(str),
    st.floats().map(str),
    st.text(max_size=6),
)
CSV_LINE = st.lists(CSV_CELL, max_size=4).map(",".join)
GOOD_CSV_LINE = st.tuples(st.integers(0, 59), st.integers(0, 9), st.integers(0, 9)).map(
    lambda row: f"2023-11-16 18:15:{row[0]:02d}.5,{row[1]},{row[2]}"
)

JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**65) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
MOONCAKE_ROW = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.integers(0, 5_000) | JSON_VALUE,
        "input_length": st.integers(1, 1_200) | JSON_VALUE,
        "output_length": st.integers(1, 20) | JSON_VALUE,
        "hash_ids": st.lists(st.integers(0, 4), max_size=3) | JSON_VALUE,
    },
)


def reads_or_refuses(name: str, data: bytes, invalid: Invalid) -> None:
    message = ""
    try:
        trace = parse_bytes(name, data, invalid)
    except TraceError as error:
        message = str(error)
    if message:
        assert message.isprintable()
        return
    assert isinstance(trace, Trace)
    assert len(trace) >= 1
    assert int(trace.metadata.get("rows", len(trace))) >= len(trace)


def write(columns: dict[str, Any], notes: dict[str, str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(notes), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@pytest.fixture(scope="module")
def parquet_bytes() -> bytes:
    rows = 40
    columns = {
        "arrival_s": pa.array(np.arange(rows) / 7.0),
        "prompt_tokens": pa.array(np.full(rows, 40, dtype=np.int32)),
        "output_tokens": pa.array(np.full(rows, 4, dtype=np.int32)),
        "prefix_hash_ids": pa.array([[0, row + 1] for row in range(rows)], pa.list_(pa.int32())),
        "session_id": pa.array([f"s{row}" for row in range(rows)]),
    }
    return write(columns, {"block_size_tokens": "32"})


@settings(max_examples=300)
@given(st.binary(max_size=200), NAMES, INVALID, st.booleans())
def test_any_bytes(data: bytes, name: str, invalid: Invalid, zipped: bool) -> None:
    reads_or_refuses(name, gzip.compress(data) if zipped else data, invalid)


@settings(max_examples=300)
@given(st.lists(GOOD_CSV_LINE | CSV_LINE, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]), INVALID)
def test_any_csv(lines: list[str], end: str, invalid: Invalid) -> None:
    text = end.join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines])
    reads_or_refuses("x.csv", text.encode("utf-8", "surrogatepass"), invalid)


@settings(max_examples=300)
@given(st.lists(MOONCAKE_ROW.map(json.dumps) | st.text(max_size=10), max_size=8), INVALID)
def test_any_mooncake_file(lines: list[str], invalid: Invalid) -> None:
    reads_or_refuses("x.jsonl", "\n".join(lines).encode("utf-8", "surrogatepass"), invalid)


@settings(max_examples=300)
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4), invalid=INVALID)
def test_parquet_with_changed_bytes(parquet_bytes: bytes, edits: list[tuple[int, int]], invalid: Invalid) -> None:
    data = bytearray(parquet_bytes)
    for position, value in edits:
        data[position % len(data)] = value
    reads_or_refuses("x.parquet", bytes(data), invalid)


@settings(max_examples=100)
@given(cut=st.integers(0, 10**6), invalid=INVALID)
def test_truncated_parquet_and_gzip(parquet_bytes: bytes, cut: int, invalid: Invalid) -> None:
    reads_or_refuses("x.parquet", parquet_bytes[: cut % len(parquet_bytes)], invalid)
    zipped = gzip.compress(parquet_bytes)
    reads_or_refuses("x.parquet", zipped[: cut % len(zipped)], invalid)


NUMBERS = st.none() | st.integers(-2, 600) | st.sampled_from([2**31, 2**62])
TIMES = st.none() | st.floats() | st.floats(0, 10)
IDS = st.none() | st.lists(st.none() | st.integers(-1, 5), max_size=3)


@settings(max_examples=200)
@given(
    rows=st.lists(st.tuples(TIMES, NUMBERS, NUMBERS, IDS, st.none() | st.text(max_size=2)), max_size=8),
    drop=st.sets(
        st.sampled_from(["arrival_s", "prompt_tokens", "output_tokens", "prefix_hash_ids", "user_id"]), max_size=1
    ),
    notes=st.fixed_dictionaries(
        {},
        optional={
            "block_size_tokens": st.sampled_from(["none", "1", "512", "-1", "x", "9" * 30]),
            "arrival_reference": st.sampled_from(["trace", "none", "session start"]),
            "semiflow_trace": st.text(max_size=5),
        },
    ),
    invalid=INVALID,
)
def test_any_content_of_parquet(rows: list[Any], drop: set[str], notes: dict[str, str], invalid: Invalid) -> None:
    types = [pa.float64(), pa.int64(), pa.int64(), pa.list_(pa.int64()), pa.string()]
    names = ["arrival_s", "prompt_tokens", "output_tokens", "prefix_hash_ids", "user_id"]
    columns = {
        name: pa.array([row[at] for row in rows], types[at]) for at, name in enumerate(names) if name not in drop
    }
    reads_or_refuses("x.parquet", write(columns, notes), invalid)
