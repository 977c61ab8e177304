"""Interrupted, the long commands keep what they simulated, and the same command goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.anchors import ANCHORS
from experiments.anchors.anchor import Anchor, Claim
from experiments.cases.answers import Answers
from experiments.cli import INTERRUPTED, run
from experiments.config import RunConfig
from experiments.figures import STUDIES
from experiments.figures.study import Band, Row, Study, column
from experiments.placement import phases
from experiments.placement.phases import Shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROPOSE = ["propose", "distserve", "--model", "opt-13b", "--hardware-profile", "distserve-a100", "--devices", "2"]
PROPOSE += ["--trace", "bundled:distserve-sharegpt-like", "--slo", "ttft=0.2,tpot=0.1", "--tolerance", "0.3"]


@dataclass
class Simulator:
    """Notes what is simulated; the call of this number ends in an error instead."""

    calls: list[object] = field(default_factory=list)
    ends_at: int | None = None
    error: type[BaseException] = KeyboardInterrupt

    def simulate(self, asked: object) -> None:
        if len(self.calls) == self.ends_at:
            raise self.error
        self.calls.append(asked)


simulator = Simulator()


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure and an anchor of three runs a seed; a proposal's runs by arithmetic."""
    for name, value in vars(Simulator()).items():
        monkeypatch.setattr(simulator, name, value)
    monkeypatch.setitem(STUDIES, "made_up", Study("made_up", "?", {"source": "ours"}, measured, bands, drawn))
    monkeypatch.setitem(ANCHORS, "made_up", Anchor("made_up", {"source": "ours"}, measured, claims, drawn))
    monkeypatch.setattr(phases, "measure", shares)


def latency_ms(load: float, seed: int) -> float:
    simulator.simulate((load, seed))
    return 100 * load / (seed + 3)


def shares(config: RunConfig, phase: str) -> Shares:
    rate, devices = config.workload.rate_rps or 0.0, sum(each.count * (each.tp or 1) for each in config.fleet.groups)
    simulator.simulate((config.model_dump_json(), phase))
    share = 1.0 if rate < 3.0 * devices else 0.3
    return Shares(share, share, share, False)


def measured(seeds: Sequence[int], progress: Callable[..., None], answers: Answers) -> list[Row]:
    progress(0, 0)
    asked = [(load, seed) for load in (0.1, 0.2, 0.7) for seed in seeds]
    return [{"load": load, "seed": seed, "ms": answers.ask(latency_ms, load, seed)} for load, seed in asked]


def bands(rows: Sequence[Row]) -> list[Band]:
    return [Band("mean", sum(column(rows, "ms")) / len(rows), low=1.0)]


def claims(rows: Sequence[Row]) -> list[Claim]:
    return [Claim("mean", "9", sum(column(rows, "ms")) / len(rows), low=1.0)]


def drawn(rows: Sequence[Row]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.subplots().plot(column(rows, "load"), column(rows, "ms"))
    return figure


def contents(folder: Path) -> dict[str, Any]:
    """Of all files; manifests without their time."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in [name for name in found if name.endswith(".json")]:
        found[name] = [item for item in json.loads(found[name]).items() if item[0] != "created_at"]
    return found


@pytest.mark.parametrize(
    ("command", "kept", "files"),
    [
        (["figure", "made_up", "--seeds", "2"], "out/.made_up.runs", 3),
        (["anchor", "made_up", "--seeds", "2"], "out/.made_up.runs", 3),
        (PROPOSE, ".out.runs", 2),
    ],
)
def test_it_goes_on_where_it_was_and_ends_in_the_same_files(
    command: list[str], kept: str, files: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--out", str(tmp_path / "at once")]) == 0
    needed, simulator.calls = simulator.calls, []
    told = capsys.readouterr()
    assert "taken over" not in told.err

    asked = [*command, "--out", str(tmp_path / "out")]
    simulator.ends_at = 4
    assert run(asked) == INTERRUPTED
    said = capsys.readouterr().err
    assert said.startswith("error: interrupted; 4 simulated runs are kept in ")
    assert said.endswith(f"{kept}, the same command goes on from there\n")
    assert (tmp_path / kept).is_file()

    simulator.ends_at = None
    assert run(asked) == 0
    assert simulator.calls == needed, "what was simulated is not simulated again"
    again = capsys.readouterr()
    assert f"{kept}: 4\n" in again.err
    assert again.out.replace(str(tmp_path / "out"), "") == told.out.replace(str(tmp_path / "at once"), "")
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")
    assert len(contents(tmp_path / "out")) == files
    assert not (tmp_path / kept).exists()


def test_each_run_of_a_search_is_simulated_once() -> None:
    assert run([*PROPOSE, "--json"]) == 0
    assert len(simulator.calls) == len(set(simulator.calls)) > 10


def test_another_seed_or_configuration_is_not_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*PROPOSE, "--out", str(tmp_path / "out")]
    simulator.ends_at = 5
    assert run([*asked, "--dispatch", "round_robin"]) == INTERRUPTED
    simulator.ends_at, simulator.calls = None, []
    assert run(asked) == 0
    assert "taken over" not in capsys.readouterr().err
    assert len(simulator.calls) == len(set(simulator.calls)) > 10


def test_more_seeds_take_over_those_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulator.ends_at = 2
    assert run(["figure", "made_up", "--seeds", "1", "--out", str(tmp_path)]) == INTERRUPTED
    simulator.ends_at = None
    assert run(["figure", "made_up", "--seeds", "2", "--out", str(tmp_path)]) == 0
    assert sorted(simulator.calls) == [(load, seed) for load in (0.1, 0.2, 0.7) for seed in (0, 1)]  # type: ignore[type-var]
    assert "taken over" in capsys.readouterr().err


def test_without_a_folder_a_search_keeps_its_runs_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    simulator.ends_at = 3
    assert run(PROPOSE) == INTERRUPTED
    assert [path.name for path in tmp_path.iterdir()] == [".propose-distserve.runs"]
    simulator.ends_at = None
    assert run(PROPOSE) == 0
    assert "taken over from .propose-distserve.runs: 3" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_interrupted_before_its_first_answer_it_keeps_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.ends_at = 0
    assert run(["anchor", "made_up", "--out", str(tmp_path)]) == INTERRUPTED
    assert "interrupted; no half-written result" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_what_was_simulated_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulator.ends_at, simulator.error = 2, MemoryError
    assert run(["figure", "made_up", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("2 simulated runs are kept in ")
    assert said[1].startswith("error: the memory is full")


def test_interrupted_in_drawing_it_leaves_no_file_in_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_rows: Sequence[Row]) -> Figure:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(STUDIES, "made_up", replace(STUDIES["made_up"], draw=interrupted))
        assert run(["figure", "made_up", "--seeds", "1", "--out", str(tmp_path)]) == INTERRUPTED
    assert run(["figure", "made_up", "--seeds", "1", "--out", str(tmp_path)]) == 0
    assert len(simulator.calls) == 3
