"""What policies decide: plain, immutable values; and the error of a decision that the host cannot carry out.

Import these from :mod:`policies.api`. Units: tokens, percent of one device's compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Role = Literal["colocated", "prefill", "decode", "semi_pd"]


class PolicyError(Exception):
    """A policy decided something that the host cannot do; names the policy, the decision and what was allowed."""


class Dispatch(NamedTuple):
    """Send the request to this instance, and optionally choose at once who decodes it: a decode instance, or a
    colocated one (then a colocated ``instance_id`` hands the request over once it is prefilled, or keeps it where
    instances would wait for one another's memory)."""

    instance_id: int
    decode_instance_id: int | None = None
    reason: str | None = None


class Reject(NamedTuple):
    """Refuse the request. It counts as a miss."""

    reason: str


class Chunk(NamedTuple):
    """Compute the next ``tokens`` uncomputed prompt tokens of this sequence."""

    request_id: int
    tokens: int


class BatchPlan(NamedTuple):
    """One lane's next iteration. Cost follows change: decodes are named as "all, minus a few"."""

    prefills: tuple[Chunk, ...] = ()
    decode: bool = True
    """All running decodes take part, paused ones included, less ``skip``; False: none does."""
    skip: frozenset[int] = frozenset()
    """Decodes to leave out of this iteration; they keep their KV."""
    preempt: tuple[int, ...] = ()
    """Drop these first (recomputed later). Without it the host preempts the latest arrival where decodes do not fit."""
    holds: bool = False
    """A promise: while nobody arrives, finishes, is preempted or ends its prefill, the policy would return this plan
    again (same chunk sizes, while more than that is left) until its blocks cannot be had. Saves the host asking."""
    reason: str | None = None


DECODE_ALL = BatchPlan(holds=True)
IDLE = BatchPlan(decode=False)


class Partition(NamedTuple):
    """Compute shares of a semi-PD instance's two lanes, each 1..100; the sum may exceed 100 (the device arbitrates)."""

    prefill_pct: int
    decode_pct: int


class ScalePlan(NamedTuple):
    """How many instances of each role there should be.

    A role that is not named keeps its number. Where one role loses instances and another gains some, a fleet that is
    convertible drains the former and turns them into the latter.
    """

    targets: Mapping[Role, int]
    reason: str | None = None
