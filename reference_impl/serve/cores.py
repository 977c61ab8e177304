"""Which cores a deployment's processes keep to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from reference_impl.serve.ray_cluster import LaunchError


def check_cores(cores: tuple[int, ...] | None) -> None:
    """Raises LaunchError where one of them is not ours to use."""
    if cores is None or not hasattr(os, "sched_getaffinity"):
        return
    there = os.sched_getaffinity(0)
    if not there.issuperset(cores):
        raise LaunchError(f"cores {list(cores)} cannot be used; there are {sorted(there)}")


@contextlib.contextmanager
def on_cores(cores: tuple[int, ...] | None, launcher_pid: Callable[[], int]) -> Iterator[None]:
    """This process and all below it keep to ``cores``; the workers, children of the launcher, have cores of their own.

    It is for a deployment that is up: starting takes every core there is.
    """
    if cores is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    _keep(cores, launcher_pid())
    try:
        yield
    finally:
        _keep(before, launcher_pid())


def _keep(cores: tuple[int, ...] | set[int], launcher_pid: int) -> None:
    """Twice, since a thread that had not been told yet may have started another one."""
    for _ in range(2):
        this = psutil.Process()
        for process in (this, *this.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                if process.ppid() != launcher_pid:
                    _keep_threads(process.pid, cores)


def _keep_threads(pid: int, cores: tuple[int, ...] | set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)
