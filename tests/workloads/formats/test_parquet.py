"""The shared parquet format: what it may hold, and what is refused or dropped."""

from __future__ import annotations

import gzip
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workloads.errors import TraceError
from workloads.formats import parse_bytes

COLUMNS: dict[str, Any] = {
    "arrival_s": pa.array([0.0, 1.0, 2.0]),
    "prompt_tokens": pa.array([600, 512, 5], pa.int32()),
    "output_tokens": pa.array([1, 2, 3], pa.int32()),
}
IDS = pa.array([[0, 1], [0], []], pa.list_(pa.int32()))
BLOCKS = {"block_size_tokens": "512"}


def packed(columns: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata or {}), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def test_columns_labels_and_provenance_are_read() -> None:
    columns = COLUMNS | {
        "prefix_hash_ids": IDS,
        "user_id": pa.array([7, 8, None], pa.int32()),
        "session_id": pa.array(["a", "b", "a"]),
        "other": pa.array([None, None, None], pa.string()),
    }
    notes = {"trace_name": "n", "license": "MIT", "source_url": "u", "source_sha256": "s", "hash_scope": "trace"}
    trace = parse_bytes("p.parquet", packed(columns, BLOCKS | notes))
    assert (trace.name, trace.prefix_ids, trace.prefix_block_tokens) == ("n", ((0, 1), (0,), ()), 512)
    assert (trace.tenant, trace.session_id) == (("7", "8", ""), ("a", "b", "a"))
    assert {key: trace.metadata[key] for key in ("licence", "source_url", "source_sha256", "rows")} == {
        "licence": "MIT",
        "source_url": "u",
        "source_sha256": "s",
        "rows": "3",
    }


def test_gzip_and_large_types_are_read() -> None:
    columns = COLUMNS | {"prompt_tokens": pa.array([600.0, 512.0, 5.0]), "arrival_s": pa.array([0, 1, 2], pa.uint8())}
    trace = parse_bytes("p.parquet.gz", gzip.compress(packed(columns)))
    assert (trace.name, trace.prompt_tokens.tolist()) == ("p", [600, 512, 5])


BAD_ROWS = [
    ({"prompt_tokens": pa.array([600, 0, 5])}, "column prompt_tokens: 0"),
    ({"prompt_tokens": pa.array([600, None, 5])}, "column prompt_tokens: nan"),
    ({"prompt_tokens": pa.array([600.0, 1.5, 5.0])}, r"column prompt_tokens: 1\.5"),
    ({"output_tokens": pa.array([1, -2, 5])}, "column output_tokens: -2"),
    ({"output_tokens": pa.array([1, 2**62, 5])}, "column output_tokens"),
    ({"output_tokens": pa.array([1.0, 1e300, 5.0])}, "column output_tokens: 1e"),
    ({"arrival_s": pa.array([0.0, None, 2.0])}, "column arrival_s: nan"),
    ({"arrival_s": pa.array([0.0, -1.0, 2.0])}, r"column arrival_s: -1\.0"),
    ({"arrival_s": pa.array([1.0, 0.5, 2.0])}, r"column arrival_s: 0\.5"),
    ({"prefix_hash_ids": pa.array([[0], None, [1]], pa.list_(pa.int32()))}, "column prefix_ids: None"),
    ({"prefix_hash_ids": pa.array([[0], [None], [1]], pa.list_(pa.int32()))}, "column prefix_ids: None"),
    ({"prefix_hash_ids": pa.array([[0], [-4], [1]], pa.list_(pa.int32()))}, "column prefix_ids: None"),
    ({"prefix_hash_ids": pa.array([[0], [1, 2], [3]], pa.list_(pa.int32()))}, "column prefix_ids: '2 ids'"),
    ({"prefix_hash_ids": pa.array([[0], [2**63], [1]], pa.list_(pa.uint64()))}, "column prefix_ids: None"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ROWS)
def test_a_bad_row_is_refused_or_dropped(change: dict[str, Any], message: str) -> None:
    data = packed(COLUMNS | change, BLOCKS)
    with pytest.raises(TraceError, match=r"p\.parquet, row 1, " + message):
        parse_bytes("p.parquet", data)
    kept = parse_bytes("p.parquet", data, "drop")
    assert kept.arrival_s[1:].tolist() == [2.0]
    assert kept.metadata["rows_dropped"] == "1"


def without(column: str) -> dict[str, Any]:
    return {name: values for name, values in COLUMNS.items() if name != column}


@pytest.mark.parametrize("invalid", ["error", "drop"])
@pytest.mark.parametrize(
    ("columns", "notes", "message"),
    [
        (COLUMNS, {"arrival_reference": "root session start (no common clock)"}, "sessions without a common clock"),
        (without("arrival_s"), {"arrival_reference": "none"}, "lengths without arrival times"),
        (without("arrival_s"), {}, "lengths without arrival times"),
        (without("output_tokens"), {}, "missing columns: output_tokens"),
        ({"x": pa.array([1])}, {}, "missing columns: arrival_s, prompt_tokens, output_tokens"),
        (COLUMNS | {"prompt_tokens": pa.array(["a", "b", "c"])}, {}, "column prompt_tokens: type string"),
        (COLUMNS | {"prompt_tokens": pa.array([True, True, True])}, {}, "column prompt_tokens: type bool"),
        (COLUMNS | {"prefix_hash_ids": IDS}, {}, "block_size_tokens: 'none'"),
        (COLUMNS | {"prefix_hash_ids": IDS}, {"block_size_tokens": "0"}, "block_size_tokens: '0'"),
        (COLUMNS | {"prefix_hash_ids": IDS}, BLOCKS | {"hash_scope": "session"}, "comparable only inside b'session'"),
        (COLUMNS | {"prefix_hash_ids": pa.array([1, 2, 3])}, BLOCKS, "column prefix_hash_ids: type int64"),
        ({name: values[:0] for name, values in COLUMNS.items()}, {}, "no requests"),
    ],
)
def test_another_kind_of_file_is_refused(
    columns: dict[str, Any], notes: dict[str, str], message: str, invalid: Any
) -> None:
    with pytest.raises(TraceError, match=message):
        parse_bytes("p.parquet", packed(columns, notes), invalid)


def test_a_file_with_a_column_twice_is_refused() -> None:
    sink = pa.BufferOutputStream()
    arrays = [*COLUMNS.values(), COLUMNS["arrival_s"]]
    pq.write_table(pa.Table.from_arrays(arrays, names=[*COLUMNS, "arrival_s"]), sink)
    with pytest.raises(TraceError, match="columns occur twice: arrival_s"):
        parse_bytes("p.parquet", sink.getvalue().to_pybytes())


def test_a_truncated_file_is_called_damaged() -> None:
    data = packed(COLUMNS)
    for length in (4, 50, len(data) - 1):
        with pytest.raises(TraceError, match=r"p\.parquet: damaged parquet file"):
            parse_bytes("p.parquet", data[:length])
