"""A policy inside another object that the host takes for it."""

from __future__ import annotations

import random
from typing import Generic, TypeVar

from policies.api import Policy

_Kind = TypeVar("_Kind", bound=Policy)


class Wrapped(Generic[_Kind]):
    """Has the name and the random stream of ``policy``; what else a policy does is up to the subclass."""

    def __init__(self, policy: _Kind) -> None:
        self.policy = policy
        self.kind = policy.kind
        self.name = policy.name

    @property
    def rng(self) -> random.Random:
        """The policy's own."""
        return self.policy.rng

    @rng.setter
    def rng(self, rng: random.Random) -> None:
        self.policy.rng = rng
