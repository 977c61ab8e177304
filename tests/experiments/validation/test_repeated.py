"""Several recordings of one run: their mean errors, and folders that do not belong together."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pytest

from experiments.cli import run
from experiments.config_base import ConfigError
from experiments.validation.repeated import validate_vllm_runs

RECORDED = Path(__file__).resolve().parents[3] / "results" / "validation" / "recorded"
FULL = [RECORDED / f"vllm_cpu_full_pool_{number}" for number in (1, 2, 3)]


def test_the_mean_error_is_that_of_the_recordings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "vllm-run", *map(str, FULL), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [Path(each["folder"]).name for each in told["runs"]] == [folder.name for folder in FULL]
    for place, row in enumerate(told["mean_errors"]):
        errors = [each["comparison"][place]["relative_error"] for each in told["runs"]]
        assert row["errors"] == errors
        assert row["mean_error"] == pytest.approx(mean(errors))
        span = max(errors) - min(errors)
        assert 0.288 * span < row["standard_error"] < 0.334 * span  # whatever the one between them is


def test_recordings_of_different_runs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"full_pool_1 and .*free_pool_1 are recordings of different runs"):
        validate_vllm_runs([FULL[0], RECORDED / "vllm_cpu_free_pool_1"])


def test_a_picture_is_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "vllm-run", *map(str, FULL[:2]), "--plot", str(tmp_path / "x.svg")]) == 2
    assert "--plot draws one run, and 2 folders are given" in capsys.readouterr().err
