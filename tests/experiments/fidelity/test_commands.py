"""``semiflow fidelity`` and ``semiflow demo --live``: what they write and say, and their exit codes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.cli import run
from experiments.config import RunConfig
from experiments.demo_live import run_demo_live
from experiments.fidelity import hosts
from experiments.fidelity.config import FidelityConfig
from experiments.profiling import run as profiling

Build = Callable[..., FidelityConfig]
Profiler = Callable[[RunConfig, Path], None]


@pytest.fixture
def no_deployment(host: Any, profiler: Profiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both hosts of ``semiflow fidelity`` are simulated, and its profile is known."""
    monkeypatch.setattr(hosts, "Deployed", lambda _report: contextlib.nullcontext(host()))
    monkeypatch.setattr(profiling, "profile_engine", lambda config, path, **_: profiler(config, path))


@pytest.mark.usefixtures("no_deployment")
def test_fidelity_prints_its_tables_and_writes_its_files(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(build(repeats=2).model_dump(mode="json")))
    assert run(["fidelity", str(config), "--out", str(tmp_path / "out"), "--gate"]) == 0
    captured = capsys.readouterr()
    assert "mean TTFT within 20% everywhere" in captured.out
    assert "live 1: prefixes, random+prefill_first" in captured.err
    files = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert files == {"calibrated.json", "fidelity.html", "fidelity.json", "fidelity.yaml", "profile.json"}
    assert run(["fidelity", str(config), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reached"] is True


@pytest.mark.usefixtures("no_deployment")
def test_the_gate_fails_where_a_bar_is_missed(build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "study.yaml"
    missed = build(repeats=1, traces={"prefixes": {}}, bars={"dispatch_pairs": 99})
    config.write_text(yaml.safe_dump(missed.model_dump(mode="json")))
    assert run(["fidelity", str(config), "--out", str(tmp_path / "out"), "--gate"]) == 1
    assert "MISSED" in capsys.readouterr().out


def test_the_demo_shows_both_hosts_on_one_page(host: Any, profiler: Profiler, tmp_path: Path) -> None:
    told: list[str] = []
    study, page = run_demo_live(tmp_path / "demo", told.append, host=host(), profiler=profiler)
    assert {row.dispatch for row in study.rows} == {"round_robin", "least_loaded:metric=tokens", "prefix_affinity"}
    assert page.read_text().count("<svg") == 2
    assert any("least_loaded" in line for line in told)
    idle = host()
    run_demo_live(tmp_path / "demo", told.append, host=idle, profiler=profiler)
    assert idle.served == []


def test_a_live_deployment_needs_a_serve_section(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(build(calibration={}).model_dump(mode="json")))
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(PROFILE))
    command = ["fidelity", str(config), "--out", str(tmp_path / "out"), "--profile", str(profile)]
    assert run(command) == 2
    assert "a live run needs a serve section" in capsys.readouterr().err


PROFILE = {
    "format": "semiflow-profile",
    "version": 1,
    "model": "tiny",
    "dtype": "float32",
    "provenance": "known; no gaps between iterations",
    "fit": {"iteration_s": 0.01, "knots": [0], "token_s": [1e-4]},
    "overheads": None,
}
