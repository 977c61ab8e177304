"""A run's figures as text, and what is said of its SLO classes."""

from __future__ import annotations

import json

import pytest

from experiments.cli import run
from experiments.cli.figure_lines import class_notes, figure_lines
from experiments.config import SloConfig
from experiments.config_file import parse


def test_groups_have_a_table_for_each_kind_below_the_figures_of_the_run() -> None:
    figures = {
        "arrived": 3,
        "attainment": 1 / 3,
        "arrived[class=fast]": 1,
        "attainment[class=fast]": 0.0,
        "arrived[tenant=a]": 2,
        "arrived[tenant=long\nname]": 1,
        "attainment[tenant=a]": 0.5,
    }
    assert figure_lines(figures) == [
        "arrived     3",
        "attainment  0.333333",
        "",
        "class  arrived  attainment",
        "fast         1           0",
        "",
        "tenant     arrived  attainment",
        "a                2         0.5",
        "long name        1           -",
    ]


def test_a_class_without_requests_is_remarked_on() -> None:
    slo = parse(SloConfig, {"ttft_s": 1.0, "classes": {name: {"ttft_s": 0.5} for name in ("fast", "slow")}}, "test")
    (note,) = class_notes(slo, {"arrived[class=fast]": 3})
    assert note.startswith("no request is of SLO class 'slow'")
    assert list(class_notes(None, {})) == []


def test_the_figures_are_listed_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["metrics", "service", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["jain_service", "service_gap"]
    assert run(["metrics"]) == 0
    assert "goodput_rps[tenant=NAME]\n    Requests that met" in capsys.readouterr().out
    assert run(["metrics", "nothing of that kind"]) == 2
    assert "no figure's name holds" in capsys.readouterr().err
