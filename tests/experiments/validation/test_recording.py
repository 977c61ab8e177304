"""Recording a vLLM run, with an interpreter that only pretends to have vLLM."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import run
from experiments.config import WorkloadConfig
from experiments.config_base import ConfigError
from experiments.validate import validate_vllm_run
from experiments.validation.recorded_steps import course, fitted, seconds_of, steps_of
from experiments.validation.recording import Recording, record_vllm_run
from reference_impl.latency.api import Work
from reference_impl.latency.measured import Measured

PRETENDER = """\
#!{python}
import json
import os
import signal
import sys

task = json.load(sys.stdin)
engine = dict(vllm_version="9", device="toy", kv_cache=dict(num_gpu_blocks=101, block_size=16))
engine["kv_cache"].update(enable_prefix_caching=False, gpu_memory_utilization=0.5)
limits = dict(max_num_seqs=8, max_num_batched_tokens=64)
engine["resolved_config"] = dict(scheduler_config=limits, model_config=dict(max_model_len=512, dtype="float32"))


def say(**content):
    print("semiflow " + json.dumps(content), flush=True)


def step(now, chunks, contexts, left):
    tokens = len(contexts) + sum(new for new, _ in chunks)
    done = now + 0.01 + 0.001 * tokens + 1e-5 * sum(contexts)
    counts = dict(running=left, waiting=0, free_blocks=90, preempted=0, left=left)
    return dict(planned_s=now, done_s=done, real_s=done, chunks=chunks, contexts=contexts, **counts)


def measured():
    steps = [step(0, [[8, 0]], [], 1)]
    for count in range(1, 9):
        shapes = [([], [10] * count), ([], [99] * count), ([[5 * count, 0]], []), ([[40, 0]], [50] * count)]
        for chunks, contexts in shapes:
            steps.append(step(steps[-1]["done_s"], chunks, contexts, count))
    return [], steps


def served():
    requests, steps = [], []
    for number, (_, prompt, output) in enumerate(task["requests"]):
        arrival = 100 + 10 * number
        steps.append(step(arrival, [[prompt, 0]], [], 1))
        first = steps[-1]["done_s"]
        steps += [step(first, [], [prompt + 1], 1)]
        for place in range(2, output):
            steps.append(step(steps[-1]["done_s"], [], [prompt + place], 1))
        steps[-1]["left"] = 0
        times = dict(arrival_ts=arrival, queued_ts=arrival, scheduled_ts=arrival, first_token_ts=first)
        times["last_token_ts"] = steps[-1]["done_s"]
        requests.append(dict(request_id=str(number), input_toks=prompt, output_toks=output, **times))
    return requests, steps


say(doing="starting vLLM", done=0, total=1)
print("a library's own line")
say(engine=engine)
if "broken" in task["engine"]:
    raise ValueError("No common block size for 16")
for name, seconds in task["phases"]:
    requests, steps = served() if seconds is None else measured()
    times = dict(started_at="then", finished_at="later")
    path = task["folder"] + "/" + name + ".json"
    with open(path + ".partial", "w") as file:
        json.dump(dict(requests=requests, steps=steps, **times), file)
    os.replace(path + ".partial", path)
    say(doing="after " + name, done=1, total=1)
    if task["engine"].get("waits_after") == name:
        signal.pause()
"""
WORKLOAD = WorkloadConfig(synthetic={"requests": 3, "arrivals": "poisson:rate_rps=1", "scenario": "D(40,5)"})
ARGUMENTS = ("--scenario", "D(40,5)", "--rate", "1", "--requests", "3")


@pytest.fixture
def pretender(tmp_path: Path) -> str:
    path = tmp_path / "python-with-vllm"
    path.write_text(PRETENDER.replace("{python}", sys.executable), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def recording(**engine: Any) -> Recording:
    return Recording(WORKLOAD, 0, None, engine, 1.0, in_turns=False)


def test_a_run_of_known_step_times_is_simulated_without_error(pretender: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    meta = record_vllm_run(recording(), pretender, out)
    assert {path.name for path in out.iterdir()} == {"meta.json", "profile.json", "requests.jsonl", "timeseries.csv"}
    assert (meta["num_requests"], meta["preemptions"], meta["kv_cache"]["num_gpu_blocks"]) == (3, 0, 101)
    found = validate_vllm_run(out)
    assert [row["relative_error"] for row in found.comparison] == pytest.approx([0.0] * 4, abs=1e-4)
    assert found.over_time is not None
    assert (found.over_time.kv_source, found.over_time.kv_blocks) == ("kv_cache_pct", 100)
    modelled = meta["measured_steps"]["run"]["decode"]
    assert modelled["seconds"] == pytest.approx(modelled["modelled_seconds"], rel=1e-4)


def test_what_was_recorded_is_kept_when_the_last_measuring_is_interrupted(pretender: str, tmp_path: Path) -> None:
    def stop(_done: int, _total: int, doing: str) -> None:
        if doing == "after run":
            raise KeyboardInterrupt

    meta = record_vllm_run(recording(waits_after="run"), pretender, tmp_path / "out", stop)
    assert set(meta["measured_steps"]) == {"before", "run"}
    assert len(validate_vllm_run(tmp_path / "out").comparison) == 4


def test_an_interrupted_run_leaves_nothing(pretender: str, tmp_path: Path) -> None:
    def stop(_done: int, _total: int, doing: str) -> None:
        if doing == "after before":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_vllm_run(recording(waits_after="before"), pretender, tmp_path / "out", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["python-with-vllm"]


def test_vllms_own_error_is_the_one_that_is_told(pretender: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot run vLLM: ValueError: No common block size for 16; give --python"):
        record_vllm_run(recording(broken=True), pretender, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--python", "/nowhere/python", *ARGUMENTS), "cannot run /nowhere/python: No such file or directory"),
        (("--python", sys.executable, *ARGUMENTS), "cannot run vLLM: ModuleNotFoundError: No module named 'vllm'"),
        (("--python", shutil.which("false") or "false", *ARGUMENTS), "cannot run vLLM: no message"),
        (("--python", "python", "--rate", "1"), "give one of them"),
        (("--python", "python", "--scenario", "D(40,5)"), "--scenario needs --rate"),
        (("--python", "python", *ARGUMENTS, "--engine-arg", "eager"), "allowed: KEY=JSON"),
        (("--python", "python", *ARGUMENTS, "--model", "."), "has no config.json"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["validate", "vllm-record", "out", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_taken_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="the folder is not empty"):
        record_vllm_run(recording(), "/nowhere/python", tmp_path)


def row(planned_s: float, done_s: float, **changed: Any) -> dict[str, Any]:
    counts = {"running": 2, "waiting": 1, "free_blocks": 4, "preempted": 0, "left": 3}
    return {
        "planned_s": planned_s,
        "done_s": done_s,
        "real_s": done_s,
        "chunks": [[4, 0]],
        "contexts": [9, 3],
        **counts,
        **changed,
    }


def test_a_step_takes_what_has_passed_since_the_one_before_unless_the_engine_was_idle() -> None:
    steps = steps_of([row(1.0, 2.0), row(2.25, 3.0, left=0), row(7.0, 7.5)], kv_blocks=10)
    assert seconds_of(steps) == [1.0, 1.0, 0.5]
    assert steps[0].work == (((4, 0),), 2, 12, 3, 9)


def test_the_course_tells_the_iteration_under_way_at_the_end_of_each_tick() -> None:
    steps = steps_of([row(10.2, 11.5, preempted=2), row(11.6, 12.5, running=3, left=0), row(14.5, 14.8, left=0)], 10)
    found = list(course([{"arrival_ts": 10.0, "first_token_ts": 11.5, "input_toks": 6}], steps, 10, 1.0))
    assert [each["t"] for each in found] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [each["running"] for each in found] == [2, 3, 0, 0, 0]
    assert [each["kv_cache_pct"] for each in found] == [60.0, 60.0, 0.0, 0.0, 0.0]
    assert [each["prompt_throughput"] for each in found] == [0.0, 6.0, 0.0, 0.0, 0.0]
    assert [each["preemptions"] for each in found] == [2, 0, 0, 0, 0]


def test_a_request_counts_from_when_it_was_sent(pretender: str, tmp_path: Path) -> None:
    record_vllm_run(recording(), pretender, tmp_path / "out")
    path = tmp_path / "out" / "requests.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    before = validate_vllm_run(tmp_path / "out").comparison[0]["real"]
    path.write_text("\n".join(json.dumps({**each, "arrival_ts": each["queued_ts"] - 1}) for each in rows), "utf-8")
    assert validate_vllm_run(tmp_path / "out").comparison[0]["real"] == pytest.approx(before + 1.0)
    path.write_text("\n".join(json.dumps({**each, "arrival_ts": each["queued_ts"] + 1}) for each in rows), "utf-8")
    with pytest.raises(ConfigError, match=r"line 1: arrival_ts is .*; it must be a number up to queued_ts"):
        validate_vllm_run(tmp_path / "out")


def test_a_slow_moment_does_not_make_the_size_that_it_met_look_slow() -> None:
    now_s, rows = 0.0, []
    while now_s < 120.0:
        sizes = [1 + int(now_s / 2.5) % 8, 1 + int(now_s / 2.5 + 3) % 8]
        for size in sizes:
            slowness = 2.0 if 40.0 <= now_s < 45.0 or 80.0 <= now_s < 85.0 else 1.0
            done_s = now_s + slowness * (0.02 + 0.005 * size)
            rows.append(row(now_s, done_s, chunks=[], contexts=[50] * size))
            now_s = done_s
    cost = Measured(fitted([steps_of(rows, 10)]).coefficients, "fitted")
    ratios = [cost.iteration_s(Work((), size, 50 * size, 50, 50)) / (0.02 + 0.005 * size) for size in range(1, 9)]
    assert max(ratios) / min(ratios) < 1.03  # 1.09 without the speed of each moment
