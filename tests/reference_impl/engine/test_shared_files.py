"""Shared files of runs: named, owned, swept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reference_impl.engine.api import EngineError
from reference_impl.engine.shared_files import RunLock, shared_path, sweep, sweep_dead


def test_the_files_of_a_run_go_with_its_lock_and_others_stay(run: str) -> None:
    lock = RunLock(run)
    mine, other = shared_path(run, "0-kv"), shared_path(f"{run}x", "0-kv")
    for path in (mine, other):
        path.write_bytes(b"KV")
    lock.release()
    assert not mine.exists()
    assert sweep(f"{run}x", "1-") == []
    assert sweep(f"{run}x", "0-") == [other]
    RunLock(run).release()


def test_only_what_dead_runs_left_is_swept(run: str) -> None:
    alive = RunLock(run)
    kept, left = shared_path(run, "kv"), shared_path(f"{run}dead", "kv")
    for path in (kept, left):
        path.write_bytes(b"KV")
    code = "import sys; from reference_impl.engine.shared_files import RunLock; RunLock(sys.argv[1]); print('held')"
    subprocess.run([sys.executable, "-c", code, f"{run}dead"], check=True, cwd=Path(__file__).parents[3])
    assert [path for path in sweep_dead() if run in path.name] == [left]
    assert kept.exists()
    assert not shared_path(run, "x").with_name(f"semiflow-{run}dead.lock").exists()
    alive.release()


def test_a_run_that_is_alive_cannot_be_claimed_again(run: str) -> None:
    lock = RunLock(run)
    with pytest.raises(EngineError, match="is alive in another process; choose another name"):
        RunLock(run)
    lock.release()
    lock.release()


@pytest.mark.parametrize("name", ["", "a-b", "../x", "a" * 65, "a*"])
def test_names_that_could_mean_other_files_are_refused(name: str) -> None:
    with pytest.raises(EngineError, match="letters, digits and underscores"):
        sweep(name)
