"""Whether the memory of a deployment's processes grows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.bench.serve_processes import pss_bytes, tree


class Memory(NamedTuple):
    """Of one process."""

    role: str
    own_bytes: int
    """Resident, pages of files and of shared memory left out: those are there from the start, and become resident as
    they are first used."""
    pss_bytes: int
    """Proportional set size: all of it."""


class Sample(NamedTuple):
    """All processes at one moment."""

    at_s: float
    memory: dict[int, Memory]
    """By process id."""


def sample(root: int) -> Sample:
    """Look at a process and all below it."""
    found = {}
    for process in tree(root):
        try:
            found[process.pid] = Memory(process.role, process.own_bytes, pss_bytes(process.pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Sample(time.monotonic(), found)


def growth_per_minute(samples: Sequence[Sample], pid: int | None = None) -> float:
    """Bytes a minute by least squares: of one process, or of all that were there throughout."""
    wanted = lasting(samples) if pid is None else {pid}
    minutes = np.array([sample.at_s for sample in samples]) / 60
    sizes = np.array([sum(sample.memory[pid].own_bytes for pid in wanted) for sample in samples], dtype=np.float64)
    minutes -= minutes.mean()
    spread = float((minutes**2).sum())
    return float((minutes * (sizes - sizes.mean())).sum()) / spread if spread else 0.0


def lasting(samples: Sequence[Sample]) -> set[int]:
    """The processes that every sample has."""
    return set.intersection(*(set(sample.memory) for sample in samples))


def growth_note(samples: Sequence[Sample]) -> str:
    """Who grew most, and how all of it was at both ends."""
    wanted = lasting(samples)
    slope, role = max((growth_per_minute(samples, pid), samples[0].memory[pid].role) for pid in wanted)
    first, last = (
        tuple(sum(getattr(sample.memory[pid], kind) for pid in wanted) / 1e6 for kind in ("own_bytes", "pss_bytes"))
        for sample in (samples[0], samples[-1])
    )
    return (
        f"slope of {len(wanted)} processes' own memory after warm-up; {first[0]:.0f} to {last[0]:.0f} MB (PSS"
        f" {first[1]:.0f} to {last[1]:.0f} MB); fastest: {role}, {slope / 1e6:+.2f} MB/min"
    )
