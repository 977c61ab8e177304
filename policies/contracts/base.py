"""What every policy must keep, whatever its kind."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, ClassVar

from policies.api import PolicyKind
from policies.contracts.purity import no_hidden_inputs
from policies.registry import PolicySpec

Handover = Callable[[Any], Any]
"""Called with the policy before each decision; returns the policy object that makes it."""


def keep(policy: Any) -> Any:
    return policy


class PolicyContract:
    """Subclass one of the kinds' suites in your tests and name your policy::

        class TestMyRouter(DispatchContract):
            spec = "my_package.router:MyRouter:alpha=0.5"

    or override :meth:`make`. Plain asserts; pytest runs it and is not imported.
    """

    kind: ClassVar[PolicyKind]
    spec: ClassVar[str] = ""
    seeds: ClassVar[range] = range(10)

    def make(self, seed: int) -> Any:
        """A new policy object, its ``rng`` seeded."""
        if not self.spec:
            raise TypeError(f"{type(self).__name__}: set spec = 'module:Class' or override make(seed)")
        return PolicySpec.parse(self.spec, self.kind).build(seed)

    def decisions(self, policy: Any, seed: int, handover: Handover = keep) -> list[object]:
        """The decisions of one scenario made from ``seed``, each checked."""
        raise NotImplementedError

    def test_decisions_are_valid(self) -> None:
        for seed in self.seeds:
            assert self.decisions(self.make(seed), seed), "the scenario asked for no decision"

    def test_same_seed_and_views_give_the_same_decisions(self) -> None:
        for seed in self.seeds:
            again = self.decisions(self.make(seed), seed)
            assert again == self.decisions(self.make(seed), seed), "a second policy of the same seed decides otherwise"

    def test_survives_pickle_in_mid_run(self) -> None:
        for seed in self.seeds:
            moved = self.decisions(self.make(seed), seed, lambda policy: pickle.loads(pickle.dumps(policy)))
            assert moved == self.decisions(self.make(seed), seed), "a pickled policy decides otherwise"

    def test_reads_no_clock_and_no_global_randomness(self) -> None:
        policy = self.make(0)
        with no_hidden_inputs():
            self.decisions(policy, 0)
