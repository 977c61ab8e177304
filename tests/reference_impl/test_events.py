"""Rows that several processes log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reference_impl.events import ROW_FIELDS, EventLog
from reference_impl.metrics import read, rebuild


def test_taken_rows_are_gone_and_put_rows_are_there() -> None:
    instance, collector = EventLog(None), EventLog(None)
    instance.admit.append((1.0, 7, 0, "mixed", 0))
    taken = instance.take()
    assert taken == {"admit": [(1.0, 7, 0, "mixed", 0)]}
    assert instance.take() == {}
    instance.admit.append((2.0, 8, 0, "mixed", 0))
    assert taken == {"admit": [(1.0, 7, 0, "mixed", 0)]}
    collector.put(json.loads(json.dumps(taken)))
    collector.put(instance.take())
    assert collector.table().column("request").to_pylist() == [7, 8]
    assert instance.table().num_rows == 0


def test_rows_of_an_unknown_kind_are_not_put() -> None:
    with pytest.raises(ValueError, match=f"rows of 'explode' .*; allowed: {', '.join(ROW_FIELDS)}"):
        EventLog(None).put({"explode": [(1.0,)]})


@pytest.mark.parametrize("flushes", [True, False])
def test_rows_that_come_late_are_read_in_order(tmp_path: Path, flushes: bool) -> None:
    """The instance's rows reach the log after those of the front door, and in two parts, the later one first."""
    with EventLog(tmp_path / "events.parquet", {"schema_version": 1}) as log:
        log.arrive += [(0.0, 0, 8), (5.0, 1, 8)]
        log.dispatch += [(0.5, 0, 0, None), (5.5, 1, 0, None)]
        if flushes:
            log.flush()
        log.put({"run": [(3.0, 0, "mixed", 0, 1, 2.0, 1, 3.0, 0.0, 0.0, 1)], "finish": [(3.0, 0, 0, "mixed", 2)]})
        if flushes:
            log.flush()
        log.put({"run": [(2.0, 0, "mixed", 8, 0, 1.0, 1, 2.0, 0.0, 0.0, 1)], "prefilled": [(2.0, 0, 0, "mixed", 1)]})
        log.put({"change": [(3.0, "pause", 0, 0, "mixed", 2, None)], "admit": [(1.0, 0, 0, "mixed", 0)]})
    run = read(tmp_path / "events.parquet")
    found = {int(row): kind for kind, rows in run.rows.items() for row in rows.ints("row")}
    assert [found[row] for row in sorted(found)] == [
        *("arrive", "dispatch", "admit", "run", "prefilled", "run", "finish", "pause", "arrive", "dispatch"),
    ]
    assert run.rows["run"].floats("start_s").tolist() == [1.0, 2.0]
    assert rebuild(run).times_s(0).tolist() == [2.0, 3.0]
