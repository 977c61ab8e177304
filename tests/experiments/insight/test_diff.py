"""``semiflow diff``: empty for equal runs, exact for others, and an error for what is no run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.cli import run
from experiments.insight.diff import diff
from experiments.insight.saved_run import open_run
from experiments.insight.settings import differing, figures

Simulated = Callable[..., Path]


def with_metadata(folder: Path, target: Path, **told: object) -> Path:
    """A copy of a run whose event log says something else of itself."""
    shutil.copytree(folder, target)
    table = pq.read_table(target / "events.parquet")
    metadata = json.loads(table.schema.metadata[b"semiflow"]) | told
    pq.write_table(table.replace_schema_metadata({"semiflow": json.dumps(metadata)}), target / "events.parquet")
    return target


def test_equal_runs_do_not_differ(simulated: Simulated) -> None:
    found = diff(simulated("colocated"), simulated("colocated", name="again"))
    assert [found[part] for part in ("config", "origin", "metrics", "regressed")] == [[], [], [], []]
    assert found["first_event"] is found["first_decision"] is None
    assert found["requests"]["e2e_s"] == {
        "pairs": 30,
        "mean_s": 0.0,
        "median_s": 0.0,
        "p90_s": 0.0,
        "better": 0.0,
        "worse": 0.0,
    }


def test_another_policy_is_found_everywhere(simulated: Simulated) -> None:
    first, second = simulated("colocated"), simulated("colocated", policies={"dispatch": "round_robin"})
    found = diff(first, second, top=3)
    assert found["config"] == [
        {"key": "policies.dispatch", "first": "least_loaded:metric=tokens", "second": "round_robin"}
    ]
    before, after = open_run(first), open_run(second)
    grown = after.table.e2e_s - before.table.e2e_s
    requests = found["requests"]
    assert (requests["pairs"], requests["paired_by"], requests["same_arrivals"]) == (30, "request number", True)
    assert requests["e2e_s"]["median_s"] == pytest.approx(np.median(grown))
    assert requests["e2e_s"]["worse"] == pytest.approx((grown > 1e-9).mean())
    worst = found["regressed"][0]
    assert worst["request"] == int(np.argmax(grown))
    assert len(found["regressed"]) == 3
    for row in found["regressed"]:
        assert sum(row["changes_ns"].values()) / 1e9 == pytest.approx(
            row["second_e2e_s"] - row["first_e2e_s"], abs=1e-8
        )
    decision = found["first_decision"]
    sent = [run_.log.rows["dispatch"].ints("instance") for run_ in (before, after)]
    assert decision["request"] == int(np.flatnonzero(sent[0] != sent[1])[0])
    assert decision["instances"] == [int(column[decision["request"]]) for column in sent]
    metrics = {row["key"]: row for row in found["metrics"]}
    mean = metrics["e2e_mean_ms"]
    assert mean["difference"] == mean["second"] - mean["first"]
    assert mean["relative"] == pytest.approx(mean["difference"] / mean["first"])


def test_the_first_event_that_differs_is_given_with_both_rows(simulated: Simulated) -> None:
    folders = simulated("colocated"), simulated("colocated", policies={"dispatch": "round_robin"})
    found = diff(*folders)["first_event"]
    rows = [pq.read_table(folder / "events.parquet").to_pylist() for folder in folders]
    assert rows[0][: found["row"]] == rows[1][: found["row"]]
    for side, table in zip(("first", "second"), rows, strict=True):
        assert found[side] == {name: cell for name, cell in table[found["row"]].items() if cell is not None}
    assert found["first"] != found["second"]


@pytest.mark.parametrize("at", [0, 1, 57, -1])
def test_a_single_changed_row_is_found(simulated: Simulated, tmp_path: Path, at: int) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(simulated("colocated"), changed)
    table = pq.read_table(changed / "events.parquet")
    rows = table.to_pylist()
    rows[at]["reason"] = "another one"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), changed / "events.parquet")
    found = diff(simulated("colocated"), changed)["first_event"]
    assert found["row"] == at % len(rows)
    assert found["second"]["reason"] == "another one"


def test_a_shorter_run_ends_where_the_longer_one_goes_on(simulated: Simulated, tmp_path: Path) -> None:
    shorter = tmp_path / "shorter"
    shutil.copytree(simulated("colocated"), shorter)
    table = pq.read_table(shorter / "events.parquet")
    pq.write_table(table.slice(0, table.num_rows - 2), shorter / "events.parquet")
    found = diff(simulated("colocated"), shorter)["first_event"]
    assert (found["row"], found["second"]) == (table.num_rows - 2, None)


def test_a_live_run_of_the_same_trace_is_paired(simulated: Simulated, tmp_path: Path) -> None:
    live = with_metadata(simulated("colocated", policies={"dispatch": "random"}), tmp_path / "live", host="live")
    found = diff(simulated("colocated"), live)
    assert found["hosts"] == ["simulated", "live"]
    assert found["first_event"] is None
    assert found["requests"]["pairs"] == 30
    assert found["first_decision"] is not None


def test_a_replay_is_compared_by_what_a_client_sees(simulated: Simulated, tmp_path: Path) -> None:
    second = simulated("colocated", policies={"dispatch": "round_robin"})
    row = diff(simulated("colocated"), with_metadata(second, tmp_path / "replay", clock="client"), top=1)["regressed"][
        0
    ]
    assert set(row["changes_ns"]) == {"until_first_token", "streaming"}
    grown_s = row["second_e2e_s"] - row["first_e2e_s"]
    assert sum(row["changes_ns"].values()) / 1e9 == pytest.approx(grown_s, abs=1e-8)


def test_requests_before_the_first_one_of_the_other_run_are_left_out(simulated: Simulated, tmp_path: Path) -> None:
    """A client's trial request comes first and shifts the numbers of all others."""
    shifted = tmp_path / "shifted"
    shutil.copytree(simulated("colocated"), shifted)
    table = pq.read_table(shifted / "events.parquet")
    rows = table.to_pylist()
    for row in rows:
        row["request"] = None if row["request"] is None else row["request"] + 1
    trial = {"time_s": 0.0, "request": 0, "tokens": 3}
    rows = [trial | {"kind": "arrive"}, trial | {"kind": "reject", "reason": "a trial"}, *rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), shifted / "events.parquet")
    requests = diff(simulated("colocated"), shifted)["requests"]
    assert (requests["pairs"], requests["paired_by"], requests["unpaired"]) == (30, "order of arrival", [0, 1])
    assert requests["e2e_s"]["p90_s"] == 0.0
    assert diff(shifted, simulated("colocated"))["requests"]["unpaired"] == [1, 0]


def test_other_requests_are_not_paired(simulated: Simulated) -> None:
    found = diff(simulated("colocated"), simulated("colocated", seed=1))
    assert found["requests"] is None
    assert "did not serve the same requests" in found["not_paired"]
    assert {"key": "seed", "first": 0, "second": 1} in found["config"]


def test_a_part_of_the_requests_is_paired(simulated: Simulated) -> None:
    few = {"trace": "bundled:shared-prefix:requests=30", "max_requests": 20, "rate_rps": 40.0}
    requests = diff(simulated("colocated"), simulated("colocated", workload=few))["requests"]
    assert (requests["pairs"], requests["unpaired"]) == (20, [10, 0])


def test_settings_are_compared_by_their_flat_keys() -> None:
    first, second = {"a": {"b": [1, 2]}, "c": None}, {"a": {"b": [1, 3]}, "d": {}}
    assert differing(first, second) == [
        {"key": "a.b[1]", "first": 2, "second": 3},
        {"key": "c", "first": None, "second": None},
        {"key": "d", "first": None, "second": {}},
    ]
    assert figures({"x": 0, "y": 1.0}, {"x": 1, "z": 2.0}) == [
        {"key": "x", "first": 0, "second": 1, "difference": 1, "relative": None},
        {"key": "y", "first": 1.0, "second": None, "difference": None, "relative": None},
        {"key": "z", "first": None, "second": 2.0, "difference": None, "relative": None},
    ]


def test_the_exit_code_is_0_and_the_text_says_what_differs(
    simulated: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = simulated("colocated"), simulated("colocated", policies={"dispatch": "round_robin"})
    assert run(["diff", str(first), str(second)]) == 0
    said = capsys.readouterr().out
    for words in ("configuration: 1 differ", "policies.dispatch", "30 pairs", "most regressed", "first event that"):
        assert words in said
    assert run(["diff", str(first), str(second), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]
    assert run(["diff", str(first), str(first)]) == 0
    assert "events: the same" in capsys.readouterr().out


def test_what_is_no_run_is_refused(simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = simulated("colocated")
    newer = with_metadata(good, tmp_path / "newer", schema_version=2)
    broken = tmp_path / "broken"
    shutil.copytree(good, broken)
    (broken / "metrics.json").write_text("{")
    for folder, message in (
        (tmp_path, "holds no config.yaml, so it is no finished run"),
        (newer, "event log version 2; this semiflow reads version 1"),
        (broken, "metrics.json: not JSON"),
    ):
        assert run(["diff", str(good), str(folder)]) == 2
        assert message in capsys.readouterr().err
