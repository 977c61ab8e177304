"""The linters are part of the tests, so that one command checks everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy"])
def test_is_clean(command: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", *command.split()], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert answer.returncode == 0, f"{answer.stdout}\n{answer.stderr}"


def test_no_source_file_is_over_400_lines() -> None:
    folders = ("policies", "workloads", "reference_impl", "experiments")
    sizes = {path: path.read_text(encoding="utf-8").count("\n") for f in folders for path in (ROOT / f).rglob("*.py")}
    assert sizes
    assert {str(path): lines for path, lines in sizes.items() if lines > 400} == {}


def test_the_ci_runs_the_command_of_the_readme() -> None:
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert command.startswith("python3 -m venv .venv && ")
    assert command in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
