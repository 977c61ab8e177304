"""Reading event logs: what is refused, and how it is said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reference_impl.events import Event
from reference_impl.metrics import EventLogError, RunLog, read
from reference_impl.metrics import log as log_module


def test_events_are_sorted_into_kinds_with_their_place_in_the_log(
    make_run: Callable[..., RunLog], two_requests: list[Event]
) -> None:
    run = make_run(two_requests)
    assert run.rows["finish"].ints("request").tolist() == [1, 0]
    assert run.rows["finish"].ints("row").tolist() == [11, 13]
    assert run.rows["run"].floats("start_s").tolist() == [0.25, 1.0, 2.0, 2.5, 2.75]
    assert len(run.rows["preempt"]) == 0
    assert run.makespan_s == 3.75


def test_batches_of_any_size_give_the_same_columns(
    write_log: Callable[..., Path], two_requests: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_log(two_requests)
    whole = read(path)
    monkeypatch.setattr(log_module, "_BATCH_ROWS", 4)
    pieces = read(path)
    for kind, rows in whole.rows.items():
        for name, column in rows.columns.items():
            np.testing.assert_array_equal(pieces.rows[kind].columns[name], column)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EventLogError, match=r"nowhere\.parquet: no such event log"):
        read(tmp_path / "nowhere.parquet")


def test_a_truncated_file_is_refused(write_log: Callable[..., Path], two_requests: list[Event]) -> None:
    path = write_log(two_requests)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EventLogError, match="not a readable parquet file"):
        read(path)


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(EventLogError, match="not an event log: no column"):
        read(tmp_path / "a.parquet")


def test_a_log_of_another_version_is_refused(write_log: Callable[..., Path], two_requests: list[Event]) -> None:
    with pytest.raises(EventLogError, match="version 2; this semiflow reads version 1"):
        read(write_log(two_requests, schema_version=2))


def test_a_null_where_a_value_belongs_is_refused_with_its_row(write_log: Callable[..., Path]) -> None:
    events = [Event(0.0, "arrive", 0, tokens=3), Event(1.0, "prefilled", 0, None, tokens=1)]
    with pytest.raises(EventLogError, match="row 1: prefilled without instance"):
        read(write_log(events))


def test_an_unknown_kind_is_refused_with_its_row(write_log: Callable[..., Path]) -> None:
    with pytest.raises(EventLogError, match="row 1: unknown kind 'explode'"):
        read(write_log([Event(0.0, "arrive", 0, tokens=3), Event(1.0, "explode", 0)]))


def test_an_unknown_lane_is_refused(write_log: Callable[..., Path]) -> None:
    events = [Event(0.0, "arrive", 0, tokens=3), Event(1.0, "run", None, 0, "third", 0, 1, 0.0, 1, 1.0)]
    with pytest.raises(EventLogError, match="row 1: run without lane"):
        read(write_log(events))


def test_an_unknown_kind_is_refused_wherever_it_stands(
    write_log: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_BATCH_ROWS", 2)
    events = [*(Event(float(moment), "arrive", moment, tokens=3) for moment in range(3)), Event(3.0, "explode", 0)]
    with pytest.raises(EventLogError, match="row 3: unknown kind 'explode'"):
        read(write_log(events))


@pytest.mark.parametrize(("column", "allowed"), [("request", "integers or floats"), ("lane", "text")])
def test_a_column_of_another_type_is_refused(
    column: str, allowed: str, write_log: Callable[..., Path], two_requests: list[Event]
) -> None:
    path = write_log(two_requests)
    table = pq.read_table(path)
    other = pa.array([True] * table.num_rows)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, other), path)
    with pytest.raises(EventLogError, match=rf"column {column}: type bool \(allowed: {allowed}\)"):
        read(path)


def test_whole_numbers_saved_as_floats_are_read(
    write_log: Callable[..., Path], make_run: Callable[..., RunLog], two_requests: list[Event]
) -> None:
    """Other tools turn integers with gaps into floats."""
    expected = make_run(two_requests).rows["run"].columns
    path = write_log(two_requests)
    table = pq.read_table(path)
    for name in ("request", "instance", "tokens", "kv_blocks"):
        table = table.set_column(table.schema.get_field_index(name), name, table.column(name).cast(pa.float64()))
    pq.write_table(table, path)
    for name, column in read(path).rows["run"].columns.items():
        np.testing.assert_array_equal(column, expected[name])
