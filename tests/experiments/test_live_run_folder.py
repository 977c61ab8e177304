"""A live run's folder: whole at the end, kept where it could not be finished, and then finished by ``record``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import run
from experiments.config import RunConfig
from experiments.run_folder import SPOOL
from experiments.serve import live_deployment
from reference_impl.events import EventLog
from reference_impl.metrics import per_request, read
from reference_impl.serve import collect, launch
from reference_impl.serve.messages import Status
from reference_impl.serve.ray_cluster import LaunchError
from reference_impl.serve.spec import LiveSpec, Record
from reference_impl.serve.spool import Batch, LogRows, Spool, pack_rows

CONFIG = RunConfig.model_validate(
    {
        "fleet": {"model": "tiny", "kv_blocks": 64, "max_sequences": 8, "max_batch_tokens": 128},
        "policies": {"batch": "prefill_first"},
        "slo": {"ttft_s": 1.0},
    }
)
LINE = {
    "request": 0,
    "arrival_s": 1.0,
    "prompt_tokens": 5,
    "output_tokens": 3,
    "outcome": "finished",
    "first_token_s": 1.5,
    "last_token_s": 2.5,
    "end_s": 2.6,
}


class FakeRunning:
    """A deployment that was asked one request; ``on_drain`` happens while it finishes."""

    ready_s = 1.0

    def __init__(self, spec: LiveSpec, on_drain: Callable[[], object]) -> None:
        self._on_drain = on_drain
        assert spec.record is not None
        spool = Spool(spec.record.spool)
        rows: LogRows = {"arrive": [(1.0, 0, 5)], "dispatch": [(1.1, 0, 0, None)], "request": [LINE]}
        spool.append([Batch("front_door-0-1", 1, pack_rows(rows))])
        spool.close()
        (spec.record.folder / "decisions-je0.jsonl").write_text("[]\n", encoding="utf-8")

    def drain(self) -> Status:
        self._on_drain()
        return Status((), (), True, "", 1)


class Served:
    """``live_deployment`` of a fake deployment."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.said: list[str] = []
        self.on_drain: Callable[[], object] = list

    @contextlib.contextmanager
    def launched(self, spec: LiveSpec, *_: object, **__: object) -> Iterator[FakeRunning]:
        yield FakeRunning(spec, self.on_drain)

    def serve(self, error: BaseException | None = None) -> None:
        with live_deployment(CONFIG, self.out, self.said.append):
            if error is not None:
                raise error

    def kept(self) -> Path:
        """Where the last line says that the run is kept."""
        return Path(self.said[-1].removeprefix("what was recorded is kept in ").split(";")[0])


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    found = Served(tmp_path / "run")
    monkeypatch.setattr(launch, "launched", found.launched)
    return found


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_whole(folder: Path) -> dict[str, Any]:
    """It has everything; gives the manifest."""
    assert len(per_request(read(folder / "events.parquet"))) == 1
    assert json.loads((folder / "requests.jsonl").read_text()) == LINE
    assert json.loads((folder / "metrics.json").read_text())["completed"] == 1
    assert {"config.yaml", "decisions-je0.jsonl"} <= names(folder)
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def test_a_run_that_ends_well_is_whole_and_nothing_else_is_left(served: Served) -> None:
    served.serve()
    assert names(served.out.parent) == {"run"}
    manifest = check_whole(served.out)
    assert SPOOL not in names(served.out)
    assert (manifest["ready_s"], manifest["outcome"]["requests"], "log_error" in manifest) == (1.0, 1, False)


def test_a_full_disk_at_the_end_keeps_what_was_recorded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventLog, "close", full)
    with pytest.raises(OSError, match="No space left on device"):
        served.serve()
    assert served.kept() == served.out.with_name("run.unfinished")
    assert names(served.kept()) == {"config.yaml", "manifest.json", SPOOL, "decisions-je0.jsonl"}
    assert names(served.out.parent) == {"run.unfinished"}


def test_a_disk_that_is_full_at_the_very_last_can_still_be_finished_later(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_text

    def no_room_for_the_manifest(path: Path, text: str, **options: Any) -> int:
        if path.name.startswith("manifest") and '"outcome"' in text:
            path.touch()
            full()
        return written(path, text, **options)

    monkeypatch.setattr(Path, "write_text", no_room_for_the_manifest)
    with pytest.raises(OSError, match="No space left on device"):
        served.serve()
    monkeypatch.undo()
    assert run(["record", str(served.kept()), "--out", str(served.out.with_suffix(".parquet"))]) == 0
    check_whole(served.kept())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_while_it_stops_changes_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    gathered = collect.collect

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(number)
        return gathered(*arguments)

    served.on_drain = lambda: signal.raise_signal(number)
    monkeypatch.setattr(collect, "collect", interrupted)
    before = signal.getsignal(number)
    served.serve()
    check_whole(served.out)
    assert [line.split(";")[0] for line in served.said] == ["stopping already"] * 2
    assert signal.getsignal(number) is before


def test_a_deployment_that_is_lost_keeps_what_was_recorded(served: Served) -> None:
    with pytest.raises(LaunchError):
        served.serve(LaunchError("the cluster manager has been away for 120 s"))
    assert SPOOL in names(served.kept())


def test_what_is_kept_replaces_nothing_that_was_kept_before(served: Served) -> None:
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            served.serve(KeyboardInterrupt())
    assert names(served.out.parent) == {"run.unfinished", "run.unfinished-2", "run.unfinished-3"}


def test_a_deployment_that_never_came_up_leaves_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def fails(*_: object, **__: object) -> Iterator[None]:
        raise LaunchError("Ray does not start")
        yield

    monkeypatch.setattr(launch, "launched", fails)
    with pytest.raises(LaunchError):
        served.serve()
    assert (names(served.out.parent), served.said) == (set(), [])


def test_record_finishes_what_was_kept(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        served.serve(KeyboardInterrupt())
    trace = served.out.with_suffix(".parquet")
    for _ in range(2):  # the rows stay, so it can be done again
        assert run(["record", str(served.kept()), "--out", str(trace), "--force"]) == 0
        captured = capsys.readouterr()
        assert f"{trace}: 1 requests over 0.0 s" in captured.out
        assert captured.err.startswith(f"note: {served.kept()} was not finished; ")
    assert check_whole(served.kept())["log_error"] == "the run was cut short; what came last is missing"


def test_a_run_whose_operator_was_killed_can_be_finished(served: Served, tmp_path: Path) -> None:
    with live_deployment(CONFIG, served.out, served.said.append):
        (partial,) = tmp_path.glob(".run.*.partial")  # what would stay
        assert run(["record", str(partial), "--out", str(tmp_path / "t.parquet")]) == 0
    check_whole(served.out)


def test_rows_without_a_manifest_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / SPOOL).touch()
    assert run(["record", str(tmp_path), "--out", str(tmp_path / "t.parquet")]) == 2
    assert f"{tmp_path}: has no manifest.json of a live run beside its {SPOOL}" in capsys.readouterr().err


def test_the_rows_have_the_name_that_a_deployment_gives_them() -> None:
    assert Record(Path("run")).spool == Path("run") / SPOOL
