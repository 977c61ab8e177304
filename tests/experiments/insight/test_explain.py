"""``semiflow explain``: what it tells is what happened, from a second simulation or from recordings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from experiments.cli import run
from experiments.insight.explain import explain
from experiments.insight.lanes import Iteration, ran
from experiments.insight.saved_run import SavedRun, open_run
from reference_impl.metrics import RunLog
from reference_impl.metrics.log import Rows

Simulated = Callable[..., Path]
PREFIX = {"dispatch": "cache_aware", "batch": "chunked_prefill:chunk_tokens=256"}


def pretended_live(folder: Path, target: Path) -> Path:
    """A simulated run as a deployment would have left it."""
    shutil.copytree(folder, target)
    table = pq.read_table(target / "events.parquet")
    told = json.loads(table.schema.metadata[b"semiflow"]) | {"host": "live"}
    pq.write_table(table.replace_schema_metadata({"semiflow": json.dumps(told)}), target / "events.parquet")
    return target


def waited(folder: Path) -> int:
    """The request that waited longest for its first token."""
    saved = open_run(folder)
    return int(saved.table.request[saved.table.ttft_s.argmax()])


@pytest.mark.parametrize("fleet", ["colocated", "disaggregated", "semi_pd"])
def test_the_story_adds_up(simulated: Simulated, fleet: str) -> None:
    folder = simulated(fleet)
    request = waited(folder)
    story = explain(folder, request, counterfactual=False)
    assert story["notes"] == []
    assert sum(story["breakdown_ns"].values()) == story["total_ns"]
    assert story["total_ns"] == pytest.approx(story["e2e_s"] * 1e9, abs=2)
    if not story["preemptions"]:
        assert sum(part["own_tokens"] for part in story["prompt"]) == story["prompt_tokens"] - story["cached_tokens"]
    assert story["decode"]["gaps"] == story["output_tokens"] - 1
    assert story["slo"]["ttft"]["left_s"] == pytest.approx(0.1 - story["ttft_s"])
    assert story["decisions"][0]["phase"] == "prefill"
    assert story["decisions"][0]["decision"][1] == story["path"][0]


def test_a_hand_over_shows_both_decisions(simulated: Simulated) -> None:
    story = explain(simulated("disaggregated"), 5, counterfactual=False)
    assert [decision["phase"] for decision in story["decisions"]] == ["prefill", "decode"]
    assert [decision["decision"][1] for decision in story["decisions"]] == story["path"]
    assert [view["instance_id"] for view in story["decisions"][1]["instances"]] == [2, 3]


def test_what_the_policys_prefix_index_held_is_shown(simulated: Simulated) -> None:
    folder = simulated("colocated", policies=PREFIX)
    hits = [
        view["prefix_hit_tokens"]
        for request in (20, 25, 29)
        for view in explain(folder, request, counterfactual=False)["decisions"][0]["instances"]
    ]
    assert 1024 in hits  # the groups' prefix
    assert 0 in hits


def test_ages_of_views_are_those_of_the_reports(simulated: Simulated) -> None:
    folder = simulated("colocated", host={"report_period_s": 0.05, "report_delay_s": 0.02})
    story = explain(folder, 9, counterfactual=False)
    ages = [view["age_s"] for view in story["decisions"][0]["instances"]]
    assert all(0.02 <= age < 0.07 + 1e-9 for age in ages)


@pytest.mark.parametrize("fleet", ["colocated", "semi_pd"])
def test_recorded_decisions_tell_the_same_story(simulated: Simulated, tmp_path: Path, fleet: str) -> None:
    folder = simulated(fleet, decisions="all", policies={"batch": "chunked_prefill:chunk_tokens=256"})
    request = waited(folder)
    heard = explain(folder, request, counterfactual=False)
    read = explain(pretended_live(folder, tmp_path / "live"), request)
    for part in ("breakdown_ns", "prompt", "waits", "decode", "notes"):
        assert read[part] == heard[part]
    assert json.loads(json.dumps(read["decisions"])) == json.loads(json.dumps(heard["decisions"]))
    assert "counterfactual" not in read
    if not heard["preemptions"]:
        own = sum(part["own_tokens"] for part in heard["prompt"])
        assert own == heard["prompt_tokens"] - heard["cached_tokens"]


def test_of_a_run_of_iterations_only_those_under_way_count() -> None:
    """Four iterations of 1 s from 0 s on, of 10 prompt tokens each."""
    cells = {"time_s": 4.0, "start_s": 0.0, "first_end_s": 1.0, "step_s": 1.0, "growth_s": 0.0}
    counts = {"instance": 0, "lane": 0, "tokens": 40, "batch": 2, "iterations": 4, "kv_blocks": 7}
    columns = {name: np.array([cell]) for name, cell in (cells | counts).items()}
    log = RunLog({"run": Rows("run", columns)}, {})
    saved = SavedRun(Path(), {}, {}, {}, log)
    assert ran(saved, 0, 1.5, 3.0) == [Iteration(0, "mixed", 1.0, 3.0, 2, 20, 2, 7)]
    assert ran(saved, 0, 3.0, 9.0) == [Iteration(0, "mixed", 3.0, 4.0, 1, 10, 2, 7)]
    assert ran(saved, 0, 4.0, 9.0) == ran(saved, 1, 0.0, 4.0) == []


def test_what_a_live_run_did_not_record_is_said(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = pretended_live(simulated("colocated"), tmp_path / "live")
    story = explain(live, 3)
    assert "holds no decisions*.jsonl (serve.record.decisions)" in story["notes"][0]
    assert story["prompt"]
    assert run(["explain", str(live), "--request", "3", "--instances", "1"]) == 2
    assert "only simulated runs can be forced elsewhere" in capsys.readouterr().err


def test_a_run_that_is_no_more_what_it_was_is_said(simulated: Simulated, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(simulated("colocated"), changed)
    content: dict[str, Any] = yaml.safe_load((changed / "config.yaml").read_text())
    content["policies"]["dispatch"] = "round_robin"
    (changed / "config.yaml").write_text(yaml.safe_dump(content))
    assert "other events than the saved ones" in explain(changed, 3, counterfactual=False)["notes"][0]
    content["workload"]["trace"] = "gone.parquet"
    (changed / "config.yaml").write_text(yaml.safe_dump(content))
    assert "cannot be simulated again (" in explain(changed, 3)["notes"][0]


def test_the_text_says_what_matters(simulated: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", str(simulated("colocated", policies=PREFIX)), "--request", "29"]) == 0
    said = capsys.readouterr().out
    for words in ("request 29 of", "TTFT ", "where the time went", "sum ", "decided dispatch", "had it been sent"):
        assert words in said


def test_mistakes_are_told_in_one_line(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(simulated("colocated"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "live.unfinished").mkdir()
    (tmp_path / "live.unfinished" / "rows.spool").touch()
    for arguments, message in (
        ((folder, "--request", "30"), "request 30 is not in this run; allowed: 0 to 29"),
        ((folder, "--request", "1", "--instances", "7"), "--instances 7: request 1 could not go there; allowed: [0, 1"),
        ((folder, "--request", "1", "--instances", "x"), "--instances x: allowed: ids of instances"),
        ((str(tmp_path / "none"), "--request", "1"), "no such folder"),
        ((str(tmp_path / "empty"), "--request", "1"), "holds no config.yaml, so it is no finished run"),
        ((str(tmp_path / "live.unfinished"), "--request", "1"), "this run has not been finished"),
    ):
        assert run(["explain", *arguments]) == 2
        assert message in capsys.readouterr().err
