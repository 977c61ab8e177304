"""The contract of scaling policies."""

from __future__ import annotations

import random
from typing import Any, ClassVar, get_args

from policies.api import FleetView, PolicyKind, Role, ScalePlan
from policies.contracts.base import Handover, PolicyContract, keep
from policies.contracts.fakes import random_cluster


class ScalingContract(PolicyContract):
    kind: ClassVar[PolicyKind] = "scaling"

    def decisions(self, policy: Any, seed: int, handover: Handover = keep) -> list[object]:
        rng = random.Random(seed)
        configured: dict[Role, int] = {role: rng.randrange(5) for role in get_args(Role)}
        configured["colocated"] += 1
        made: list[object] = []
        for step in range(30):
            attainment = rng.choice((None, 0.0, 0.5, 1.0))
            instances = random_cluster(rng, now_s=10.0 * step).instances
            fleet = FleetView(10.0 * step, instances, rng.uniform(0, 50), attainment, dict(configured))
            policy = handover(policy)
            plan = policy.scale(fleet)
            assert fleet.configured == configured, "the policy changed the fleet view; views are read-only"
            check_scale(plan)
            made.append(plan)
        return made

    def test_the_interval_is_a_positive_time_or_none(self) -> None:
        interval_s = self.make(0).interval_s
        assert interval_s is None or interval_s > 0, f"interval_s = {interval_s}: seconds above 0, or None"


def check_scale(plan: object) -> None:
    """Whole numbers of instances of known roles, at least one instance in all."""
    assert isinstance(plan, ScalePlan), f"{plan!r}: a ScalePlan"
    for role, count in plan.targets.items():
        assert role in get_args(Role), f"{plan}: roles are {get_args(Role)}"
        assert type(count) is int, f"{plan}: whole numbers of instances"
        assert count >= 0, f"{plan}: no negative number of instances"
    assert sum(plan.targets.values()) > 0, f"{plan}: nobody would serve"
