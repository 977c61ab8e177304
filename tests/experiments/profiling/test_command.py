"""``semiflow profile``: its file, what the simulator makes of it, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import run
from experiments.config import RunConfig
from experiments.profiling import run as profiling
from reference_impl.events import EventLog


@pytest.fixture
def stub_workers(stub: Any, monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Workers without processes; the configurations that they were made for."""
    asked: list[RunConfig] = []

    @contextmanager
    def workers(config: RunConfig) -> Iterator[Sequence[Any]]:
        asked.append(config)
        yield [stub() for _ in range(config.fleet.instances)]

    monkeypatch.setattr(profiling, "workers", workers)
    return asked


def test_profile_writes_a_file_that_the_simulator_takes(
    stub_workers: list[RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny.json"
    command = ["profile", "--model", "tiny", "--device", "cpu", "--cpu-share", "0.3", "--quick", "--rounds", "1"]
    assert run([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "tiny in float32 on cpu, 0.3 of a core for each of 1 workers" in said
    assert "decode   median error" in said
    assert stub_workers[0].serve is not None
    assert stub_workers[0].serve.cpu_share == 0.3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json"], "the notes are gone"
    simulate = ["simulate", "--trace", "bundled:sharegpt-like", "--max-requests", "5", "--max-total-tokens", "400"]
    fleet = ["--hardware-profile", str(out), "--kv-blocks", "200"]
    assert run([*simulate, *fleet, "--model", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["cost_models"]["measured(tiny, tiny)"].startswith("measured")
    assert run([*simulate, *fleet, "--model", "llama-30m"]) == 2
    assert "is of tiny, but fleet.model is llama-30m" in capsys.readouterr().err


def test_a_place_that_cannot_hold_a_profile_is_told_before_the_work(
    stub_workers: list[RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["profile", "--model", "tiny", "--out"]
    assert run([*command, str(tmp_path)]) == 2
    assert f"--out {tmp_path}: is a folder; name a file in it" in capsys.readouterr().err
    assert run([*command, "/dev/null/tiny.json"]) == 2
    assert "/dev/null is no folder that can be written to" in capsys.readouterr().err
    assert not stub_workers


def test_a_live_run_adds_its_overheads(
    stub_workers: list[RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del stub_workers
    (tmp_path / "live").mkdir()
    with EventLog(tmp_path / "live" / "events.parquet", {"schema_version": 1}) as log:
        for place in range(50):
            start_s = place * 0.053
            log.run.append((start_s + 0.05, 0, "mixed", 0, 2, start_s, 1, start_s + 0.05, 0.0, 0.0, 1))
    out = tmp_path / "tiny.json"
    command = ["profile", "--quick", "--rounds", "1", "--out", str(out)]
    assert run([*command, "--live-run", str(tmp_path / "live"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads(out.read_text())
    fit = content["fit"]
    assert fit["gap_s"] + 2 * fit["gap_sequence_s"] == pytest.approx(0.003)
    with EventLog(tmp_path / "live" / "events.parquet", {"schema_version": 1}) as log:
        log.run.append((0.05, 0, "mixed", 0, 2, 0.0, 1, 0.05, 0.0, 0.0, 1))
    assert run([*command, "--live-run", str(tmp_path / "live")]) == 2
    assert "too few iterations" in capsys.readouterr().err
