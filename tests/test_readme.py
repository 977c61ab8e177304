"""What the README tells a newcomer to type works."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from experiments.cli import run

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    """Every ``semiflow`` command in a shell block, as arguments."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("semiflow ")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the README's policy and comparison."""
    (tmp_path / "mine.py").write_text(blocks("python")[0], encoding="utf-8")
    small = yaml.safe_load(blocks("yaml")[0])
    small["base"]["workload"]["max_requests"] = 40
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(small, sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def test_the_quickstart_has_two_commands() -> None:
    quickstart = README.split("## Quickstart")[1].split("\n## ")[0]
    assert len(re.findall(r"```sh\n(.*)\n```", quickstart)) == 2


def test_the_simulations_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulations = [arguments for arguments in commands() if arguments[0] == "simulate"]
    assert len(simulations) == 2
    for arguments in simulations:
        assert run([*arguments, "--max-requests", "30"]) == 0
    assert (folder / "runs" / "first" / "vllm_bench.json").is_file()
    capsys.readouterr()


def test_the_comparison_runs_and_resumes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, gated = (arguments for arguments in commands() if arguments[0] == "compare")
    assert run([*first, "--processes", "1"]) == 0
    assert "shortest queue against least tokens" in capsys.readouterr().out
    cases = sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "judged" / "cases").iterdir())
    assert run([*gated, "--processes", "1"]) in (0, 1)
    assert cases == sorted((path.name, path.stat().st_mtime_ns) for path in (folder / "judged" / "cases").iterdir())
    assert len(json.loads((folder / "judged.json").read_text(encoding="utf-8"))["cases"]) == len(cases) == 20
    assert "<svg" in (folder / "judged" / "report.html").read_text(encoding="utf-8")


def test_every_command_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for name in {arguments[0] for arguments in commands()}:
        assert run([name, "--help"]) == 0
    capsys.readouterr()


def test_the_live_configuration_can_be_served(capsys: pytest.CaptureFixture[str]) -> None:
    configuration = next(arguments[1] for arguments in commands() if arguments[0] == "serve")
    assert run(["serve", str(Path(__file__).resolve().parents[1] / configuration), "--check"]) == 0
    assert "good to serve" in capsys.readouterr().out
