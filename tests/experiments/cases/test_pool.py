"""Running cases: stored ones, equal ones, several processes."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.cases.model import Case, Outcome
from experiments.cases.pool import run_cases
from experiments.cases.store import CaseStore
from experiments.config import RunConfig, WorkloadConfig
from experiments.config_base import ConfigError

HOLDING = """
import os, signal
def hold(case):
    os.write(os.open({pipe!r}, os.O_WRONLY), b"x")
    signal.pause()
"""
STARTING = """
from experiments.cases.model import Case
from experiments.cases.pool import run_cases
from experiments.config import RunConfig
from holding import hold
if __name__ == "__main__":
    run_cases([Case("a", "w", None, seed, RunConfig(seed=seed)) for seed in (0, 1)], hold, processes=2)
"""


def _case(seed: int, variant: str = "a") -> Case:
    return Case(variant, "w", None, seed, RunConfig(seed=seed))


def test_equal_configurations_run_once() -> None:
    ran: list[str] = []

    def runner(case: Case) -> Outcome:
        ran.append(case.variant)
        return Outcome({"attainment": 1.0})

    found = run_cases([_case(0, "a"), _case(0, "b"), _case(1, "a")], runner)
    assert len(ran) == 2
    assert len(found) == 2


def test_two_processes_give_every_outcome(tmp_path: Path) -> None:
    cases = [_case(seed) for seed in range(3)]
    store = CaseStore(tmp_path)
    found = run_cases(cases, process_id, store, processes=2)
    assert set(found) == {case.key for case in cases}
    assert {outcome.metrics["pid"] for outcome in found.values()} != {float(os.getpid())}
    assert all(store.load(case) == found[case.key] for case in cases)


def test_an_error_in_a_process_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed 1"):
        run_cases([_case(0), _case(1)], failing, CaseStore(tmp_path), processes=2)


def test_a_process_that_ends_without_a_word_is_the_users_to_know() -> None:
    with pytest.raises(ConfigError, match="a worker process ended without a word"):
        run_cases([_case(0), _case(1)], ending, processes=2)


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """Each worker holds an end of the pipe until it is gone."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "holding.py").write_text(HOLDING.format(pipe=str(tmp_path / "pipe")), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])}
    command = [sys.executable, "-c", STARTING]
    with subprocess.Popen(command, env=environment) as parent, (tmp_path / "pipe").open("rb", buffering=0) as pipe:
        assert pipe.read(1) == b"x"
        parent.kill()
        letter = b"x"
        while letter:
            assert select.select([pipe], [], [], 30.0)[0], "a worker lives on"
            letter = pipe.read(1)


def test_more_than_two_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="allowed: 1 to 2"):
        run_cases([], process_id, processes=3)


def process_id(case: Case) -> Outcome:
    return Outcome({"pid": float(os.getpid()), "seed": float(case.seed)})


def ending(_: Case) -> Outcome:
    os._exit(3)


def failing(case: Case) -> Outcome:
    if case.seed == 1:
        raise ConfigError(f"seed {case.seed}")
    return Outcome({})


def test_the_key_changes_with_the_configuration(tmp_path: Path) -> None:
    trace = tmp_path / "a.csv"
    trace.write_text("1")
    keys = {_case(0).key, _case(1).key}
    named = RunConfig(workload=WorkloadConfig(trace=str(trace)))
    keys.add(Case("a", "w", None, 0, named).key)
    trace.write_text("2")
    os.utime(trace, (0, 0))
    keys.add(Case("a", "w", None, 0, named).key)
    assert len(keys) == 4


def test_the_key_changes_with_a_users_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = []
    for number, text in enumerate(("x = 1", "x = 2")):
        (tmp_path / "my_semiflow_policy.py").write_text(text)
        os.utime(tmp_path / "my_semiflow_policy.py", (number, number))
        config = RunConfig.model_validate({"policies": {"dispatch": "my_semiflow_policy:Mine:k=1"}})
        keys.append(Case("a", "w", None, 0, config).key)
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    "naming",
    [
        {"policies": {"dispatch": "pd_aware:heatmap=FILE"}},
        {"workload": {"synthetic": {"prompt": "recorded:trace=FILE,column=prompt"}}},
        {"workload": {"synthetic": {"output": {"kind": "recorded", "trace": "FILE", "column": "output"}}}},
    ],
)
def test_the_key_changes_with_a_file_that_is_named_inside_of_a_text(naming: dict[str, Any], tmp_path: Path) -> None:
    path, keys = tmp_path / "read.json", set()
    config = RunConfig.model_validate(json.loads(json.dumps(naming).replace("FILE", str(path))))
    for number, text in enumerate(("{}", "[]")):
        path.write_text(text)
        os.utime(path, (number, number))
        keys.add(Case("a", "w", None, 0, config).key)
    assert len(keys) == 2


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store, case = CaseStore(tmp_path), _case(0)
    store.save(case, Outcome({"attainment": 0.5}))
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:40])
    with pytest.raises(ConfigError, match=f"{path.name}: not a stored case; delete it"):
        store.load(case)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        CaseStore(tmp_path).save(_case(0), Outcome({"attainment": float("nan")}))
    assert list(tmp_path.iterdir()) == []
