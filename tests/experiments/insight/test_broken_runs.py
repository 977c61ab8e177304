"""A run's folder in which something is broken: each command that reads it says what, in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from experiments.cli import run

FEW = ("--trace", "bundled:sharegpt-like", "--max-requests", "5")
COMMANDS = ("explain BAD --request 1", "diff GOOD BAD", "diff BAD GOOD", "export BAD --perfetto trace.json")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noted(text: bytes) -> Callable[[Path], None]:
    """With other metadata."""

    def write(path: Path) -> None:
        pq.write_table(pq.read_table(path).replace_schema_metadata({b"semiflow": text}), path)

    return write


def holds(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "manifest empty": ("manifest.json", holds("{}"), "manifest.json: semiflow: missing, so no run of semiflow wrote"),
    "manifest without seed": ("manifest.json", holds('{"semiflow": "1"}'), "manifest.json: seed: missing"),
    "manifest list": ("manifest.json", holds("[]"), "manifest.json: [] (allowed: keys and values)"),
    "manifest broken": ("manifest.json", holds("{"), "manifest.json: not JSON"),
    "manifest deep": ("manifest.json", holds("[" * 100_000), "manifest.json: not JSON"),
    "manifest gone": ("manifest.json", Path.unlink, "holds no manifest.json"),
    "metrics empty": ("metrics.json", holds("{}"), "metrics.json: holds no figure"),
    "metrics text": ("metrics.json", holds('{"completed": "all"}'), "metrics.json: completed: 'all'"),
    "metrics nan": ("metrics.json", holds('{"completed": NaN}'), "metrics.json: completed: nan"),
    "config empty": ("config.yaml", holds(""), "config.yaml: workload: missing"),
    "config host": ("config.yaml", holds("{workload: {}, seed: 0, host: 3}"), "config.yaml: host: 3"),
    "events cut": ("events.parquet", cut, "events.parquet: not a readable parquet file"),
    "events gone": ("events.parquet", Path.unlink, "holds no events.parquet"),
    "events of nobody": ("events.parquet", noted(b"{"), "events.parquet: not an event log"),
    "events of a list": ("events.parquet", noted(b"[1]"), "events.parquet: not an event log"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "good"
    assert run(["simulate", *FEW, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def bad(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(good, tmp_path / "bad")
    return tmp_path / "bad"


def one_line(command: str, good: Path, bad: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run(command.replace("BAD", str(bad)).replace("GOOD", str(good)).split()) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_said(what: str, good: Path, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, breaks, said = BROKEN[what]
    breaks(bad / file)
    for command in COMMANDS:
        assert said in one_line(command, good, bad, capsys)
    assert [path.name for path in Path().iterdir()] == ["bad"]


def test_a_file_in_place_of_the_folder(good: Path, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert "no such folder" in one_line(command, good, bad / "config.yaml", capsys)


def test_an_event_log_without_events_cannot_be_drawn(good: Path, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = bad / "events.parquet"
    pq.write_table(pq.read_table(events).slice(0, 0), events)
    assert "holds no event" in one_line("export BAD --perfetto trace.json", good, bad, capsys)
