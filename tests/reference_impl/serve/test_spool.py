from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from reference_impl.events import EventLog
from reference_impl.metrics import per_request, read, summarise
from reference_impl.serve import collect as collecting
from reference_impl.serve import row_keeper
from reference_impl.serve import spool as spooling
from reference_impl.serve.channel import Channel
from reference_impl.serve.collect import collect
from reference_impl.serve.messages import Rows
from reference_impl.serve.row_keeper import RowKeeper
from reference_impl.serve.spool import Batch, LogRows, Spool, pack_rows, read_spool


def batch(number: int, rows: LogRows | None = None, sender: str = "task_executor-0-1") -> Batch:
    return Batch(sender, number, pack_rows(rows or {"arrive": [(0.0, number, 5)]}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.spool"


def test_batches_are_read_as_they_came(path: Path) -> None:
    spool = Spool(path)
    spool.append([batch(1), batch(1, sender="front_door-0-1")])
    spool.append([batch(2)])
    spool.close()
    assert [(b.sender, b.number) for b in read_spool(path)] == [
        ("task_executor-0-1", 1),
        ("front_door-0-1", 1),
        ("task_executor-0-1", 2),
    ]
    assert list(next(iter(read_spool(path))).rows()["arrive"]) == [(0.0, 1, 5)]


def test_a_batch_that_is_sent_again_is_kept_once(path: Path) -> None:
    spool = Spool(path)
    spool.append([batch(1), batch(2)])
    spool.append([batch(1), batch(2), batch(3)])
    spool.close()
    again = Spool(path)
    again.append([batch(3), batch(4)])
    again.close()
    assert [b.number for b in read_spool(path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("torn", [b"\x00", b"\x00\x00\x01\x00abc", b"\x00\x00\x00\x02\xc1\xc1"])
def test_what_a_killed_writer_left_half_is_overwritten(path: Path, torn: bytes) -> None:
    spool = Spool(path)
    spool.append([batch(1)])
    spool.close()
    with path.open("ab") as file:
        file.write(torn)
    assert [b.number for b in read_spool(path)] == [1]
    again = Spool(path)
    again.append([batch(2)])
    again.close()
    assert [b.number for b in read_spool(path)] == [1, 2]


def test_a_full_disk_ends_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(path)
    spool.append([batch(1)])
    written = os.write

    def full(file: int, content: Any) -> int:
        if len(content) <= 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(file, content[:10])

    monkeypatch.setattr(os, "write", full)
    spool.append([batch(2), batch(3)])
    monkeypatch.undo()
    assert spool.error == "No space left on device"
    spool.append([batch(4)])
    assert [b.number for b in read_spool(path)] == [1, 2], "whole batches up to where the disk was full"


def test_a_file_that_cannot_be_written_ends_the_log(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "nowhere" / "rows.spool")
    assert spool.error == "No such file or directory"
    spool.append([batch(1)])


def test_batches_that_never_came_are_a_gap(path: Path) -> None:
    spool = Spool(path)
    spool.append([batch(1), batch(1, sender="front_door-0-1"), batch(2)])
    gaps = [spool.gap]
    spool.append([batch(4)])
    assert [*gaps, spool.gap] == [None, "rows of task_executor-0-1 were lost"]
    assert spool.error is None
    spool.close()
    assert [b.number for b in read_spool(path)] == [1, 1, 2, 4]


# ------------------------------------------------------------------------------------------------- keeping in step


class Confirmed(Channel):
    """The line of a member that only listens."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []

    def send(self, message: Any) -> bool:
        self.numbers.append(message.number)
        return True


def test_rows_that_wait_for_a_disk_that_hangs_are_bounded_and_the_gap_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    content = batch(1).content
    monkeypatch.setattr(row_keeper, "_MAX_WAITING_BYTES", 2 * len(content))
    hangs, written = threading.Event(), spooling._write_all

    def slow(file: int, content: bytes) -> None:
        hangs.wait(10)
        written(file, content)

    async def check() -> None:
        monkeypatch.setattr(spooling, "_write_all", slow)
        keeper, line = RowKeeper(path), Confirmed()
        keeper.start()
        keeper.add("front_door-0-1", Rows(1, content), line)
        async with asyncio.timeout(5):
            while keeper._batches:
                await asyncio.sleep(0.001)
        for number in range(2, 6):  # the first one is being written
            keeper.add("front_door-0-1", Rows(number, content), line)
        assert keeper.error == "the disk did not keep up, rows were lost"
        hangs.set()
        async with asyncio.timeout(5):
            while line.numbers[-1:] != [3]:
                await asyncio.sleep(0.001)
        keeper.add("front_door-0-1", Rows(6, content), line)
        await keeper.stop()
        assert keeper.error == "rows of front_door-0-1 were lost"

    asyncio.run(check())
    assert [b.number for b in read_spool(path)] == [1, 2, 3, 6]
    assert "the event log has a gap" in caplog.text


# ------------------------------------------------------------------------------------------------------ collecting


def line(request: int, outcome: str = "finished", **fields: Any) -> dict[str, Any]:
    seen = {"output_tokens": 3, "first_token_s": 1.5, "last_token_s": 2.5, "end_s": 2.6}
    return {"request": request, "outcome": outcome, **seen, **fields}


def collected(path: Path, *batches: LogRows) -> tuple[Any, Path]:
    spool = Spool(path)
    spool.append([batch(number, rows) for number, rows in enumerate(batches, 1)])
    spool.close()
    events = path.with_name("events.parquet")
    return collect(path, events, path.with_name("requests.jsonl"), {"schema_version": 1}), events


def test_rows_of_all_senders_are_ordered_by_time(path: Path) -> None:
    _, events = collected(
        path,
        {"finish": [(3.0, 0, 0, "mixed", 1)], "prefilled": [(3.0, 0, 0, "mixed", 1)]},
        {"arrive": [(1.0, 0, 5)], "dispatch": [(2.0, 0, 0, None)]},
        {"request": [line(0)]},
    )
    import pyarrow.parquet as pq

    assert pq.read_table(events)["kind"].to_pylist() == ["arrive", "dispatch", "prefilled", "finish"]
    assert json.loads(path.with_name("requests.jsonl").read_text())["request"] == 0


def test_the_event_log_holds_the_requests_tenants_and_classes(path: Path) -> None:
    rows: LogRows = {"arrive": [(1.0, 0, 5), (1.0, 3, 5)]}
    lines = [line(0, "cancelled"), line(3, "cancelled", tenant="a", slo_class=None)]
    _, events = collected(path, {**rows, "request": lines})
    found = summarise(read(events))
    assert {key: value for key, value in found.items() if "[" in key} == {"arrived[tenant=a]": 1.0}


def test_rows_of_requests_whose_arrival_was_lost_are_left_out(path: Path) -> None:
    found, events = collected(path, {"arrive": [(1.0, 0, 5)]}, {"dispatch": [(2.0, 0, 0, None), (2.0, 7, 0, None)]})
    assert (found.requests, found.orphans) == (1, 1)
    assert len(per_request(read(events))) == 1


def test_the_end_that_a_killed_instance_could_not_tell_is_told_by_the_front_door(path: Path) -> None:
    found, events = collected(
        path,
        {"arrive": [(1.0, 0, 5)], "dispatch": [(1.1, 0, 0, None)], "request": [line(0)]},
        {"prefilled": [(1.4, 0, 0, "mixed", 1)]},
    )
    assert found.mended == 1
    metrics = summarise(read(events))
    assert metrics["completed"] == 1
    assert metrics["ttft_mean_ms"] == pytest.approx(500.0)
    assert metrics["tpot_mean_ms"] == pytest.approx(500.0)


def test_what_nobody_waited_for_any_more_did_not_finish(path: Path) -> None:
    rows: LogRows = {"arrive": [(1.0, 0, 5)], "finish": [(2.0, 0, 0, "mixed", 3)], "reject": [(1.9, 0, "gone")]}
    _, events = collected(path, {**rows, "request": [line(0, "cancelled")]})
    table = per_request(read(events))
    assert (table.finished.sum(), table.rejected.sum()) == (0, 1)


def test_a_request_whose_arrival_was_lost_is_not_mended(path: Path) -> None:
    found, events = collected(path, {"arrive": [(1.0, 0, 5)], "request": [line(0), line(7)]})
    assert found == (1, 0, 1)
    assert len(per_request(read(events))) == 1


def test_a_log_of_many_row_groups_tells_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_CHUNK_ROWS", 1)
    monkeypatch.setattr("reference_impl.events._FLUSH_ROWS", 1)
    arrivals: list[LogRows] = [
        {"arrive": [(float(number), number, 5)], "request": [line(number)]} for number in range(4)
    ]
    prefills: list[LogRows] = [{"prefilled": [(number + 0.5, number, 0, "mixed", 1)]} for number in reversed(range(4))]
    found, events = collected(path, *prefills, *arrivals)
    assert found == (4, 0, 4)
    import pyarrow.parquet as pq

    assert pq.ParquetFile(events).num_row_groups > 4, "rows are written as they are read"
    assert per_request(read(events)).finished.sum() == 4


def test_requests_are_not_left_half_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(EventLog, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        collected(path, {"arrive": [(1.0, 0, 5)], "request": [line(0)]})
    assert [left.name for left in path.parent.iterdir()] == [path.name]


def test_a_run_without_any_rows_has_an_empty_log(path: Path) -> None:
    found = collect(path, path.with_name("events.parquet"), path.with_name("requests.jsonl"), {"schema_version": 1})
    assert found == (0, 0, 0)
    assert len(per_request(read(path.with_name("events.parquet")))) == 0
