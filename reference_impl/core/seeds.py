"""Seeds of a deployment's many policy objects, the same in every host."""

from __future__ import annotations


def policy_seed(seed: int, instance_id: int, place: int) -> int:
    """The seed of one of an instance's policy objects; ``place`` tells them apart (lanes 0 and 1, partition 8)."""
    return seed * 1_000_003 + instance_id * 16 + place


def executor_seed(seed: int, number: int) -> int:
    """The seed of a job executor's dispatch policy; that of the first is the run's own."""
    return seed if number == 0 else seed * 1_000_003 + 1_000_000 - number
