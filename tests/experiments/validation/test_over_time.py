"""A recorded run's course beside its simulation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments.config_base import ConfigError
from experiments.validate import Validated, as_text, validate_vllm_run
from experiments.validation.figure import write
from experiments.validation.over_time import recorded_kv_use
from experiments.validation.simulated import instance_of
from experiments.validation.timeseries import read_timeseries
from experiments.vllm_run import Record, read_requests, read_settings

HEAD = "t,prompt_throughput,running,waiting,kv_cache_pct"


def series(folder: Path, *rows: str) -> Path:
    path = folder / "timeseries.csv"
    path.write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")
    return path


def record(
    queued_s: list[float], first_s: list[float], last_s: list[float], prompt: list[int], out: list[int]
) -> Record:
    queued, first, last = (np.array(column) for column in (queued_s, first_s, last_s))
    return Record(queued, queued, first, last, np.array(prompt, np.int32), np.array(out, np.int32))


@pytest.fixture(scope="module")
def real_run() -> Path:
    folder = Path(os.environ.get("SEMIFLOW_CALIBRATION", "")) / "vllm_runs/rtxpro6000_llama-3.1-8b"
    if not os.environ.get("SEMIFLOW_CALIBRATION") or not folder.is_dir():
        pytest.skip("SEMIFLOW_CALIBRATION does not name the folder of calibration data")
    return folder


@pytest.fixture(scope="module")
def validated(real_run: Path) -> Validated:
    return validate_vllm_run(real_run)


def test_the_real_runs_course_is_met(validated: Validated) -> None:
    assert validated.over_time is not None
    found = {row["series"]: row for row in validated.over_time.agreement}
    assert list(found) == ["running", "waiting", "kv_use_pct"]
    assert found["running"]["mean_absolute_difference"] < 1.0
    assert found["waiting"]["mean_absolute_difference"] < 1.0
    assert found["kv_use_pct"]["mean_absolute_difference"] < 0.5
    assert all(row["correlation"] > 0.998 and abs(row["lag_s"]) <= 0.1 for row in found.values())
    assert "kv_use_pct" in as_text(validated)


def test_the_real_runs_clock_explains_every_tick(real_run: Path) -> None:
    run, recorded = read_requests(real_run / "requests.jsonl"), read_timeseries(real_run / "timeseries.csv")
    ends_s = recorded.start_s(run) + recorded.tick_end_s
    fell = (run.first_token_s >= ends_s[:, None] - 1) & (run.first_token_s < ends_s[:, None])
    assert ((fell * run.prompt_tokens).sum(axis=1) == recorded.prompt_tokens_per_s).all()


def test_times_of_requests_give_vllms_own_running_and_waiting(real_run: Path) -> None:
    """What KV use is reconstructed from is what vLLM counted."""
    run, recorded = read_requests(real_run / "requests.jsonl"), read_timeseries(real_run / "timeseries.csv")
    now_s = (recorded.start_s(run) + recorded.tick_end_s)[:, None]
    running = ((run.scheduled_s <= now_s) & (now_s < run.last_token_s)).sum(axis=1)
    waiting = ((run.queued_s <= now_s) & (now_s < run.scheduled_s)).sum(axis=1)
    assert np.abs(running - recorded.running).mean() < 0.25
    assert np.abs(waiting - recorded.waiting).mean() < 0.25


def test_a_figure_its_data_and_what_it_rests_on_are_written(validated: Validated, tmp_path: Path) -> None:
    assert validated.over_time is not None
    write(validated.over_time, tmp_path / "new/course.svg", {"command": "semiflow"})
    head, *rows = (tmp_path / "new/course.csv").read_text(encoding="utf-8").splitlines()
    assert head.split(",")[:3] == ["time_s", "running_real", "running_simulated"]
    assert len(rows) == len(validated.over_time.time_s)
    manifest = json.loads((tmp_path / "new/course.json").read_text(encoding="utf-8"))
    assert (manifest["command"], manifest["over_time"]["kv_source"]) == ("semiflow", "recorded request times")
    assert "waiting requests" in (tmp_path / "new/course.svg").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match=r"must end in \.svg"):
        write(validated.over_time, tmp_path / "course.txt", {})


def test_a_column_of_zeros_beside_running_requests_was_not_recorded(tmp_path: Path) -> None:
    assert read_timeseries(series(tmp_path, "1.0,10,2,0,0.0", "2.0,0,0,0,0.0")).kv_use is None
    kv_use = read_timeseries(series(tmp_path, "1.0,10,2,0,1.5", "2.0,0,0,0,0.0")).kv_use
    assert kv_use is not None
    assert kv_use.tolist() == [0.015, 0.0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1.0,10,x,0,0"], "line 2: running is 'x'"),
        (["1.0,10,2"], "line 2: waiting is None"),
        (["1.0,10,-1,0,0"], "running is '-1'"),
        (["2.0,0,1,0,0", "1.0,0,1,0,0"], "t must ascend"),
        ([], "has no rows"),
    ],
)
def test_a_bad_series_is_refused(rows: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_timeseries(series(tmp_path, *rows))


def test_the_recorders_clock_is_found_from_the_prompts_of_its_ticks(tmp_path: Path) -> None:
    run = record([0.0, 0.0, 0.0], [0.3, 0.8, 2.1], [9.0, 9.0, 9.0], [100, 50, 70], [2, 2, 2])
    found = read_timeseries(series(tmp_path, "1.0,100,1,0,0", "2.0,50,2,0,0", "3.0,70,3,0,0"))
    # the first tick ends between 0.3 and 0.8, the third begins at or before 2.1
    assert found.start_s(run) == pytest.approx((0.3 + 0.8) / 2 - 1.0, abs=0.002)


def test_a_recorder_that_started_long_before_the_first_request_is_placed_too(tmp_path: Path) -> None:
    run = record([0.0, 0.2], [0.3, 0.8], [2.0, 2.5], [10, 20], [2, 2])
    early = series(tmp_path, "1.0,0,0,0,0", "2.0,0,0,0,0", "3.0,10,2,0,5", "4.0,20,2,0,5", "5.0,0,2,0,5")
    assert read_timeseries(early).start_s(run) == pytest.approx((0.3 + 0.8) / 2 - 3.0, abs=0.002)


def test_kv_use_from_recorded_times_counts_whole_blocks_of_who_holds_them(real_run: Path) -> None:
    spec = instance_of(real_run, read_settings(real_run / "meta.json"))
    run = record([0.0, 1.0], [2.0, 3.0], [12.0, 4.0], [32, 16], [11, 2])
    blocks = recorded_kv_use(run, spec, np.array([0.5, 2.5, 3.5, 12.0])) * spec.kv_blocks
    # a prompt of two blocks; with its first token a third one is in use; beside it one block and then two
    assert blocks.tolist() == pytest.approx([2, 3 + 1, 3 + 2, 0])
