"""The contract of scaling policies."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from policies.api import FleetView, PolicyKind, Role, ScalePlan, ServedView
from policies.contracts.base import Handover, PolicyContract, keep
from policies.contracts.fakes import FakeEstimate, random_cluster


class ScalingContract(PolicyContract):
    kind: ClassVar[PolicyKind] = "scaling"

    def decisions(self, policy: Any, seed: int, handover: Handover = keep) -> list[object]:
        rng = random.Random(seed)
        roles: list[Role] = ["prefill", "decode"] if seed % 2 else ["colocated"]
        configured: dict[Role, int] = {role: rng.randrange(1, 5) for role in roles}
        targets = dict(configured)
        made: list[object] = []
        for step in range(30):
            fleet = random_fleet(rng, 10.0 * step, configured, targets)
            policy = handover(policy)
            plan = policy.scale(fleet)
            assert (fleet.configured, fleet.targets) == (configured, targets), "the policy changed the fleet view"
            check_scale(plan, configured)
            targets = {**targets, **plan.targets}
            made.append(plan)
        return made

    def test_the_interval_is_a_positive_time_or_none(self) -> None:
        interval_s = self.make(0).interval_s
        assert interval_s is None or interval_s > 0, f"interval_s = {interval_s}: seconds above 0, or None"


def random_fleet(
    rng: random.Random, now_s: float, configured: Mapping[Role, int], targets: Mapping[Role, int]
) -> FleetView:
    """Instances of random load, a few of those that there should be; now and then nothing arrived or finished."""
    shown = random_cluster(rng, now_s, 8).instances
    roles = [role for role, count in targets.items() for _ in range(rng.randint(0, min(count, 4)))]
    instances = tuple(view._replace(role=role) for view, role in zip(shown, roles, strict=False))
    served = rng.choice(
        (ServedView(), ServedView(40, 0.5, 1.0, 900.0, 100.0, 0.4, 0.03), ServedView(1, 1, 1, 5, 1, 0.1))
    )
    share = rng.choice((0.0, 0.5, 1.0)) if served.requests else None
    rate_rps = rng.choice((0.0, rng.uniform(0, 50)))
    busy = sum(view.outstanding_requests for view in instances)
    return FleetView(now_s, instances, rate_rps, share, dict(configured), dict(targets), served, busy, FakeEstimate())


def check_scale(plan: object, configured: Mapping[Role, int]) -> None:
    """Whole numbers of instances, at least one of each role that is named; only roles that there are."""
    assert isinstance(plan, ScalePlan), f"{plan!r}: a ScalePlan"
    for role, count in plan.targets.items():
        assert role in configured, f"{plan}: roles are {list(configured)}"
        assert type(count) is int, f"{plan}: whole numbers of instances"
        assert count > 0, f"{plan}: nobody would serve as {role}"
