"""Figures: data, picture and manifest of a known effect, and what was expected of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from experiments.cases.answers import Answers
from experiments.cli import run
from experiments.figures import STUDIES, herding, stale_views
from experiments.figures.blis_fleet import fleet, simulated
from experiments.figures.study import Band, Row, make


def quiet(_done: int, _total: int) -> None:
    """Shows nothing."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of few requests: their bands mean nothing."""
    monkeypatch.setattr(herding, "REQUESTS", 220)
    monkeypatch.setattr(stale_views, "REQUESTS", 40)
    monkeypatch.setattr(stale_views, "AGES_MS", (5, 10, 100))
    monkeypatch.setattr(stale_views, "POLICIES", (stale_views.QUEUES, stale_views.KV_USE))


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_a_figure_is_data_picture_and_manifest_and_comes_out_the_same(name: str, short: None, tmp_path: Path) -> None:
    made = make(STUDIES[name], tmp_path, [3], quiet, Answers())
    data, picture, manifest = made.files
    assert [path.name for path in made.files] == [f"{name}.csv", f"{name}.png", f"{name}.json"]
    rows = list(csv.DictReader(data.read_text().splitlines()))
    again = STUDIES[name].measure([3], quiet, Answers())
    assert rows == [{key: str(value) for key, value in row.items()} for row in again]
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = json.loads(manifest.read_text())
    assert (told["figure"], told["seeds"]) == (name, [3])
    assert len(told["bands"]) == len(made.bands) > 3
    assert "source" in told["setup"]


def test_nothing_is_simulated_where_a_file_would_be_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "herding.png").touch()
    assert run(["figure", "herding", "--out", str(tmp_path)]) == 2
    assert "herding.png: exists already; choose another folder with --out or overwrite" in capsys.readouterr().err


def test_an_unknown_figure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["figure", "herdin"]) == 2
    assert "no figure 'herdin'; allowed: herding, stale_views" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("band", "met"),
    [
        (Band("x", 2.0, low=2.0), True),
        (Band("x", 1.9, low=2.0), False),
        (Band("x", 3.0, low=2.0, high=2.5), False),
        (Band("x", 3.0), None),
    ],
)
def test_a_number_is_held_against_its_band(band: Band, met: bool | None) -> None:
    assert band.met is met


def test_loads_are_what_was_dispatched_and_has_not_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(herding, "REQUESTS", 50)
    trace = herding.documents_and_chats(0)
    log = simulated(fleet("round_robin", 0, instances=herding.INSTANCES), trace)
    last_s = float(trace.arrival_s[-1])
    loads = herding.loads_at(log, np.array([0.0, last_s, last_s + 1000.0]))
    assert loads.sum(axis=1).tolist()[::2] == [0, 0]
    finished = int((log.rows["finish"].floats("time_s") <= last_s).sum())
    assert loads[1].sum() == 50 - finished > 0


def test_the_ratio_leaves_the_warm_up_out() -> None:
    def row(at_s: float, *loads: int) -> Row:
        return {"policy": "p", "time_s": at_s, **{f"instance_{number}": load for number, load in enumerate(loads)}}

    rows: Sequence[Row] = [row(1.0, *[9] * 7, 90), row(8.0, *[2] * 7, 8), row(9.0, *[0] * 7, 5)]
    assert herding.ratios(rows, "p").tolist() == [4.0, 5.0]


def test_stale_bands_compare_the_means_over_the_seeds() -> None:
    rows: list[Row] = [
        {"policy": policy, "job_executors": number, "view_age_ms": age_ms, "seed": seed, "ttft_p99_ms": ttft_ms}
        for policy in stale_views.POLICIES
        for number in (1, 4)
        for age_ms, means in ((5, (10.0, 30.0)), (10, (20.0, 24.0)), (100, (50.0 * number, 70.0 * number)))
        for seed, ttft_ms in enumerate(means)
    ]
    values = [band.value for band in stale_views.bands(rows)]
    assert values == pytest.approx([3.0, 3.0, 1.1, *[4.0] * len(stale_views.POLICIES)])
