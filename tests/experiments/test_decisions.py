"""``simulate --record-decisions`` and ``replay-decisions``: what is written, what is said, which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import run

FEW = ("--trace", "bundled:shared-prefix", "--max-requests", "40", "--instances", "2", "--rate", "30")


def recorded(folder: Path, which: str = "all", dispatch: str = "prefix_affinity") -> Path:
    command = ["simulate", *FEW, "--dispatch", dispatch, "--record-decisions", which, "--out", str(folder)]
    assert run(command) == 0
    return folder / "decisions.jsonl"


def test_a_recorded_run_replays_and_its_events_are_those_of_an_unrecorded_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path / "noted")
    assert run(["simulate", *FEW, "--dispatch", "prefix_affinity", "--out", str(tmp_path / "plain")]) == 0
    assert not (tmp_path / "plain" / "decisions.jsonl").exists()
    noted, plain = ((tmp_path / name / "events.parquet").read_bytes() for name in ("noted", "plain"))
    assert noted == plain
    capsys.readouterr()
    assert run(["replay-decisions", str(tmp_path / "noted")]) == 0
    said = capsys.readouterr().out
    assert "dispatch prefix_affinity, seed 0: 40 decisions, the same" in said
    assert said.count("batch unified_budget") == 2
    assert said.rstrip().endswith("of 3 policies; 0 differ")


def test_dispatch_alone_can_be_recorded(tmp_path: Path) -> None:
    path = recorded(tmp_path / "run", which="dispatch")
    assert '"plan"' not in path.read_text()


def test_a_difference_is_told_with_both_decisions_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded(tmp_path / "run", which="dispatch", dispatch="round_robin")
    lines = path.read_text().splitlines()
    at = max(number for number, line in enumerate(lines) if '"dispatch",[' in line)
    lines[at] = lines[at].replace('["dispatch",1,', '["dispatch",0,')
    path.write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert run(["replay-decisions", str(path), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["difference"]["line"] == at + 1
    assert found["difference"]["recorded"] == ["dispatch", 0, None, None]
    assert found["difference"]["decided"] == ["dispatch", 1, None, None]
    assert run(["replay-decisions", str(path.parent)]) == 1
    assert "recorded: ['dispatch', 0, None, None]" in capsys.readouterr().out


def test_a_recorded_run_can_be_replaced(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    assert run(["simulate", *FEW, "--out", str(tmp_path / "run"), "--force"]) == 0
    assert not (tmp_path / "run" / "decisions.jsonl").exists()


def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", *FEW, "--out", str(tmp_path / "run"), "--record-decisions", "some"]) == 2
    assert "--record-decisions some is not allowed; allowed: none, dispatch, all" in capsys.readouterr().err
    assert run(["simulate", *FEW, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert run(["replay-decisions", str(tmp_path / "run")]) == 2
    assert "holds no decisions*.jsonl" in capsys.readouterr().err
    (tmp_path / "odd.jsonl").write_text("[]\n")
    assert run(["replay-decisions", str(tmp_path / "odd.jsonl")]) == 2
    assert "not a line of a recording" in capsys.readouterr().err


def test_each_of_several_job_executors_is_recorded_and_decides_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["simulate", *FEW, "--dispatch", "random", "--job-executors", "2", "--record-decisions", "dispatch"]
    assert run([*command, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert run(["replay-decisions", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert said.count("dispatch random, seed") == said.count("20 decisions, the same") == 2
    assert "dispatch random, seed 0:" in said
    assert "dispatch random, seed 999999:" in said
