"""Whether the memory of a deployment's processes grows."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from experiments.bench.serve_processes import RAY, pss_bytes, tree


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


def growth_per_minute(samples: Sequence[Sample], pids: Collection[int]) -> float:
    """Bytes a minute of these processes together, by least squares."""
    minutes = np.array([sample.at_s for sample in samples]) / 60
    sizes = np.array([sum(sample.memory[pid].own_bytes for pid in pids) for sample in samples], dtype=np.float64)
    minutes -= minutes.mean()
    spread = float((minutes**2).sum())
    return float((minutes * (sizes - sizes.mean())).sum()) / spread if spread else 0.0


def lasting(samples: Sequence[Sample], *, of_ray: bool) -> list[int]:
    """The processes that every sample has: Ray's own, or ours."""
    everywhere = set.intersection(*(set(sample.memory) for sample in samples))
    return sorted(pid for pid in everywhere if (samples[0].memory[pid].role in RAY) == of_ray)


def growth_note(samples: Sequence[Sample]) -> str:
    """How all of it was at both ends, who of ours grew most, and what Ray did."""
    ours, rays = lasting(samples, of_ray=False), lasting(samples, of_ray=True)
    slope, role = max((growth_per_minute(samples, [pid]), samples[0].memory[pid].role) for pid in ours)
    own = " to ".join(f"{sum(sample.memory[pid].own_bytes for pid in ours) / 1e6:.1f}" for sample in _ends(samples))
    pss = " to ".join(f"{sum(sample.memory[pid].pss_bytes for pid in ours) / 1e6:.1f}" for sample in _ends(samples))
    return (
        f"slope of the own memory of {len(ours)} processes after warm-up: {own} MB (PSS {pss} MB); most: {role},"
        f" {slope / 1e6:+.2f} MB/min; beside them Ray's own {len(rays)}: {growth_per_minute(samples, rays) / 1e6:+.2f}"
    )


def _ends(samples: Sequence[Sample]) -> tuple[Sample, Sample]:
    return samples[0], samples[-1]
