"""The processes of a deployment: what each of them is, its CPU time and its memory. Linux."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

_REPLICA = re.compile(r"ServeReplica:[^:]*:([\w-]+)")
_LAUNCHER = "reference_impl.engine.launcher"
WORKER = "engine worker"
RAY = frozenset({"Ray", "Serve controller", "Serve proxy"})
"""Roles of processes in which none of our code runs."""


class Process(NamedTuple):
    """One process of the tree."""

    pid: int
    role: str
    cpu_s: float
    own_bytes: int
    """Resident memory that is no page of a file nor shared."""


def tree(root: int) -> list[Process]:
    """A process and all below it. One that ends meanwhile is left out."""
    top = psutil.Process(root)
    found = []
    for process in (top, *top.children(recursive=True)):
        try:
            with process.oneshot():
                command = process.cmdline()
                role = "host" if process.pid == root else role_of(command, _command(process.parent()))
                times, memory = process.cpu_times(), process.memory_info()
            found.append(Process(process.pid, role, times.user + times.system, memory.rss - memory.shared))
        except psutil.NoSuchProcess:
            continue
    return found


def role_of(command: list[str], parent_command: list[str]) -> str:
    """What a process is, by its command line; the launcher's forks have the launcher's."""
    line = " ".join(command)
    if _LAUNCHER in line:
        return WORKER if _LAUNCHER in " ".join(parent_command) else "launcher"
    replica = _REPLICA.search(line)
    if replica is not None:
        return replica[1]
    for word, role in (("ServeController", "Serve controller"), ("Proxy", "Serve proxy")):
        if word in line:
            return role
    return "Ray"


def cpu_by_role(before: list[Process], after: list[Process]) -> dict[str, float]:
    """CPU seconds between two looks; a process that came in between counts whole."""
    started = {process.pid: process.cpu_s for process in before}
    spent: dict[str, float] = {}
    for process in after:
        spent[process.role] = spent.get(process.role, 0.0) + process.cpu_s - started.get(process.pid, 0.0)
    return spent


def without_workers(spent: Mapping[str, float]) -> float:
    """CPU seconds of everything but the engine's forwards."""
    return sum(seconds for role, seconds in spent.items() if role != WORKER)


def mappings(pid: int) -> Iterator[tuple[str, int]]:
    """(path, PSS in bytes) of a process's mappings."""
    path = ""
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            path = words[5] if len(words) > 5 else ""
        elif words[0] == "Pss:":
            yield path, int(words[1]) * 1024


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process."""
    return _rollup(pid, "Pss:")


def private_bytes(pid: int) -> int:
    """Memory that a process has written and shares with nobody."""
    return _rollup(pid, "Private_Dirty:")


def _rollup(pid: int, name: str) -> int:
    words = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines())
    return sum(int(word[1]) * 1024 for word in words if word[0] == name)


def _command(process: psutil.Process | None) -> list[str]:
    return process.cmdline() if process is not None else []
