"""Places that cannot be written to are told, by the name that the user gave, before any long work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.cli import run
from experiments.config_base import ConfigError
from experiments.run_folder import check_can_hold

COMMANDS = (
    "figure herding --out OUT",
    "figure stale_views --out OUT",
    "anchor distserve --out OUT",
    "propose distserve --slo ttft=0.2,tpot=0.1 --out OUT",
    "simulate --trace bundled:sharegpt-like --out OUT/run",
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["file", "file/below", "file/deep/below"])
def test_a_file_in_the_way_is_told_first(
    command: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("experiments.run.simulate_to", None)  # whoever simulates fails
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert run(command.replace("OUT", str(tmp_path / place)).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / place}")
    assert error.count("\n") == 1
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="no folder that can be written to"):
        check_can_hold(tmp_path / "new", told=tmp_path / "new")
