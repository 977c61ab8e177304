"""Files that are missing, empty, binary or folders: one line that names what the user gave, whatever the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import run

READERS = (
    "validate vllm-run BAD",
    "validate vllm-scheduler BAD --python python3",
    "validate table BAD",
    "calibrate BAD --out out.json",
    "calibrate BAD --out out.json --system h100_sxm",
    "simulate --trace BAD",
    "simulate --hardware-profile BAD",
    "simulate --model BAD",
    "compare BAD",
    "capacity BAD",
    "fidelity BAD --out out",
    "replay-decisions BAD",
    "record BAD --out out.parquet",
    "workloads show BAD",
    "workloads convert BAD out.parquet",
)


@pytest.fixture(params=["missing", "empty", "binary", "folder", "object"])
def bad(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / str(request.param)
    if request.param == "folder":
        path.mkdir()
    elif request.param != "missing":
        path.write_bytes({"empty": b"", "binary": b"\xff\xfe\x00\x01"}.get(str(request.param), b"{}"))
    return path


@pytest.mark.parametrize("command", READERS)
def test_a_file_that_is_none_is_one_line(command: str, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(bad.parent.iterdir())
    assert run(command.replace("BAD", str(bad)).split()) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert bad.name in captured.err
    assert "Errno" not in captured.err
    assert "codec" not in captured.err
    assert sorted(bad.parent.iterdir()) == before
