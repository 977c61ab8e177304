"""Traces on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.catalog import open_trace
from workloads.errors import TraceError
from workloads.storage import load, save
from workloads.trace import Trace

Same = Callable[[Trace, Trace], None]


def test_a_saved_trace_comes_back_equal(small_trace: Trace, tmp_path: Path, assert_same: Same) -> None:
    save(small_trace.head(5), tmp_path / "small.parquet")
    assert_same(load(tmp_path / "small.parquet"), small_trace.head(5))
    assert_same(open_trace(tmp_path / "small.parquet"), small_trace.head(5))


@settings(max_examples=30)
@given(
    gaps=st.lists(st.floats(0, 1e6), min_size=1, max_size=20),
    with_ids=st.booleans(),
    metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
def test_any_trace_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[float], with_ids: bool, metadata: dict[str, str]
) -> None:
    tokens = np.arange(1, len(gaps) + 1, dtype=np.int32)
    ids = tuple((row,) for row in range(len(gaps))) if with_ids else None
    trace = Trace("ünicode", np.cumsum(gaps), tokens, tokens, ids, 64 if with_ids else None, metadata=metadata)
    path = tmp_path_factory.mktemp("saved") / "t.parquet"
    save(trace, path)
    back = load(path)
    assert back.arrival_s.tolist() == trace.arrival_s.tolist()
    assert (back.prefix_ids, back.prefix_block_tokens) == (trace.prefix_ids, trace.prefix_block_tokens)
    assert (back.name, back.metadata) == (trace.name, trace.metadata)


def test_equal_traces_give_equal_bytes(small_trace: Trace, tmp_path: Path) -> None:
    save(small_trace, tmp_path / "a.parquet")
    save(small_trace, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_missing_folder_is_named(small_trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere/t\.parquet: the trace cannot be written: No such file"):
        save(small_trace, tmp_path / "nowhere" / "t.parquet")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    small_trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"old")

    def fail(table: object, file: object, compression: str) -> None:
        file.write(b"half")  # type: ignore[attr-defined] # the file that save opened
        raise failure

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises((TraceError, KeyboardInterrupt)) as caught:
        save(small_trace, path)
    assert isinstance(failure, KeyboardInterrupt) or "No space left on device" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"schema_version": 1, "name": 3, "prefix_block_tokens": null, "metadata": {}}', "damaged"),
        ('{"schema_version": 9, "name": "t", "prefix_block_tokens": null, "metadata": {}}', "version 9"),
        ('{"schema_version": 1, "name": "t", "prefix_block_tokens": null, "metadata": {}}', "prefix_block_tokens"),
    ],
)
def test_damaged_notes_are_refused(small_trace: Trace, tmp_path: Path, notes: str, message: str) -> None:
    save(small_trace, tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet").replace_schema_metadata({"semiflow_trace": notes})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(TraceError, match=message):
        load(tmp_path / "t.parquet")


def test_a_saved_trace_that_was_tampered_with_is_checked(small_trace: Trace, tmp_path: Path) -> None:
    save(small_trace, tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    table = table.set_column(1, "prompt_tokens", pa.array([0, 5, 9, 1, 4, 12], pa.int32()))
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(TraceError, match=r"t\.parquet, row 0, column prompt_tokens: 0 is not allowed"):
        load(tmp_path / "t.parquet")
    kept = open_trace(tmp_path / "t.parquet", invalid="drop")
    assert (len(kept), kept.metadata["rows_dropped"], kept.metadata["licence"]) == (5, "1", "none")
