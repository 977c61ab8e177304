"""``semiflow export --perfetto``: a file that keeps the rules of the Trace Event format, and shows what happened."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli import run
from experiments.insight.saved_run import open_run
from experiments.insight.tracing.export import export

Simulated = Callable[..., Path]
Events = list[dict[str, Any]]
TIGHT = {"model": "llama-2-7b", "kv_blocks": 150, "prefix_caching": False}


def ns(us: float) -> int:
    return round(us * 1000)


def of(events: Events, *kinds: str) -> Events:
    return [event for event in events if event["ph"] in kinds]


def check(events: Events) -> None:
    """The rules of "Trace Event Format": common fields, slices that do not overlap, matching pairs, rising times."""
    for event in events:
        assert event["ph"] in "MXbesfCi"
        assert type(event["pid"]) is int
        assert event["pid"] > 0
        assert event["name"]
        if event["ph"] != "M":
            assert event["ts"] >= 0
        if event["ph"] not in "C":
            assert type(event["tid"]) is int
    check_slices(of(events, "X"))
    check_pairs(of(events, "b", "e"))
    check_counters(of(events, "C"))
    check_arrows(of(events, "s", "f"), of(events, "X"))
    assert all(event["s"] in ("g", "p", "t") for event in of(events, "i"))
    named = {(event["pid"], event["tid"]) for event in of(events, "M")}
    assert {(event["pid"], event["tid"]) for event in of(events, "X")} <= named


def check_slices(slices: Events) -> None:
    ends: dict[tuple[int, int], int] = defaultdict(int)
    for event in slices:
        track = event["pid"], event["tid"]
        assert event["dur"] >= 0
        assert ns(event["ts"]) >= ends[track]
        ends[track] = ns(event["ts"]) + ns(event["dur"])


def check_pairs(pairs: Events) -> None:
    """By category and id: they nest, each end is of what began last, and time goes on."""
    open_: dict[str, list[str]] = defaultdict(list)
    last: dict[str, float] = defaultdict(float)
    for event in pairs:
        track = f"{event['cat']}:{event['id']}"
        assert event["ts"] >= last[track]
        last[track] = event["ts"]
        if event["ph"] == "b":
            open_[track].append(event["name"])
        else:
            assert open_[track].pop() == event["name"]
    assert not any(open_.values())


def check_counters(counters: Events) -> None:
    last: dict[tuple[int, str], float] = {}
    for event in counters:
        track = event["pid"], event["name"]
        assert event["ts"] > last.get(track, -1.0)
        last[track] = event["ts"]
        (value,) = event["args"].values()
        assert value >= 0


def check_arrows(arrows: Events, slices: Events) -> None:
    begun: dict[str, float] = {}
    for event in arrows:
        assert any(
            (slice_["pid"], slice_["tid"]) == (event["pid"], event["tid"])
            and slice_["ts"] <= event["ts"] < slice_["ts"] + slice_["dur"]
            for slice_ in slices
        )
        if event["ph"] == "s":
            begun[event["id"]] = event["ts"]
        else:
            assert event["ts"] >= begun.pop(event["id"])
    assert not begun


def exported(folder: Path, path: Path, **options: Any) -> Events:
    written = export(folder, path, **options)
    content = json.loads(path.read_text())
    events: Events = content["traceEvents"]
    assert content["displayTimeUnit"] == "ms"
    assert (written.events, written.size_bytes) == (len(events), path.stat().st_size)
    check(events)
    return events


@pytest.mark.parametrize("fleet", ["colocated", "disaggregated", "semi_pd"])
@pytest.mark.parametrize("expand", [False, True])
def test_traces_keep_the_rules(simulated: Simulated, tmp_path: Path, fleet: str, expand: bool) -> None:
    folder = simulated(fleet, fleet=TIGHT)
    events = exported(folder, tmp_path / "t.json", expand=expand)
    saved = open_run(folder)
    runs = saved.log.rows["run"]
    slices = of(events, "X")
    assert len(slices) == (runs.ints("iterations").sum() if expand else len(runs))
    busy_s = (runs.floats("time_s") - runs.floats("start_s")).sum()
    assert sum(event["dur"] for event in slices) / 1e6 == pytest.approx(busy_s)
    tokens = sum(event["args"]["prompt_tokens"] for event in slices)
    assert tokens == runs.ints("tokens").sum()
    requests = [event for event in of(events, "b") if event["name"].startswith("request ")]
    assert [event["id"] for event in requests] == [str(request) for request in saved.table.request]
    assert len(of(events, "s")) == (len(saved.log.rows["transfer"]) if fleet == "disaggregated" else 0)


def test_counters_end_at_nobody_and_preemptions_are_marks(simulated: Simulated, tmp_path: Path) -> None:
    folder = simulated("disaggregated", fleet=TIGHT)
    events = exported(folder, tmp_path / "t.json")
    last = {(event["pid"], event["name"]): event["args"][event["name"]] for event in of(events, "C")}
    assert {value for (_, name), value in last.items() if name in ("waiting", "running")} == {0}
    saved = open_run(folder)
    marks = [event for event in of(events, "i") if event["name"] == "preempt"]
    assert len(marks) == len(saved.log.rows["preempt"]) > 0
    assert marks[0]["args"]["reason"] == "no free KV block"
    arrived = sum(event["args"]["arrivals per s"] for event in of(events, "C") if event["name"] == "arrivals per s")
    assert arrived == len(saved.table)


def test_switched_partitions_are_marks(simulated: Simulated, tmp_path: Path) -> None:
    folder = simulated("semi_pd", policies={"partition": "semi_pd:window_s=0.1"})
    events = exported(folder, tmp_path / "t.json")
    switched = open_run(folder).log.rows["partition"]
    shown = [event["args"]["prefill_pct"] for event in of(events, "i") if event["name"] == "partition"]
    assert shown == switched.ints("tokens").tolist() != []


def test_a_window_holds_what_is_in_it(simulated: Simulated, tmp_path: Path) -> None:
    folder = simulated("disaggregated")
    events = exported(folder, tmp_path / "t.json", from_s=0.3, to_s=0.6)
    times = [event["ts"] for event in events if "ts" in event]
    assert min(times) == 0.3e6
    assert max(times) <= 0.6e6
    table = open_run(folder).table
    here = np.flatnonzero((table.arrival_s < 0.6) & (table.finish_s > 0.3))
    shown = {event["id"] for event in of(events, "b")}
    assert shown == {str(request) for request in table.request[here]}


def test_gz_holds_the_same_and_equal_runs_give_equal_files(simulated: Simulated, tmp_path: Path) -> None:
    folder = simulated("colocated")
    plain = exported(folder, tmp_path / "t.json")
    for name in ("a.json.gz", "b.json.gz"):
        export(folder, tmp_path / name)
    assert json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes()))["traceEvents"] == plain
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_a_trace_that_grows_too_large_leaves_nothing(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(simulated("colocated"), folder)
    command: Sequence[str] = ("export", str(folder), "--perfetto", str(tmp_path / "t.json"), "--iterations")
    assert run([*command, "--max-mb", "0.01"]) == 2
    assert "--max-mb" in capsys.readouterr().err
    with pytest.raises(Exception, match=r"the trace is over 0\.01 MB after \d+ events; take less of the run"):
        export(folder, tmp_path / "t.json", expand=True, max_mb=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_mistakes_are_told_in_one_line(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = str(simulated("colocated")), tmp_path / "t.json"
    assert run(["export", folder, "--perfetto", str(target)]) == 0
    for arguments, message in (
        (("--perfetto", str(target)), "exists already; choose another name or overwrite it with --force"),
        (("--perfetto", "t.txt"), "allowed: a name that ends with .json or .json.gz"),
        (("--perfetto", str(target), "--force", "--from-s", "900"), "nothing of the run is in this window; allowed"),
        (("--perfetto", str(target), "--force", "--from-s", "0.5", "--to-s", "0.4"), "nothing of the run is in this"),
    ):
        assert run(["export", folder, *arguments]) == 2
        assert message in capsys.readouterr().err
