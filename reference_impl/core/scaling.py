"""What both hosts make of a scaling policy's answer: how many instances of each role there should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite

from policies.api import FleetView, PolicyError, Role, ScalePlan, ScalingPolicy

MAX_INSTANCES = 256
"""Of one role, where the configuration sets no bound: more is taken for a slip."""


class Targets:
    """How many instances of each role there should be; begins as configured."""

    def __init__(self, policy: ScalingPolicy, configured: Mapping[Role, int], most: int | None = None) -> None:
        self.policy = policy
        self.configured = dict(configured)
        self.most = most
        """Bound on the instances of one role: a plan beyond it gets as many. None: such a plan is refused."""
        self.wanted: dict[Role, int] = dict(configured)
        self.reason: str | None = None

    def ask(self, fleet: FleetView) -> bool:
        """Ask the policy; whether the targets changed. Raises what it raises, and PolicyError for a wrong plan."""
        plan = self.policy.scale(fleet)
        wanted = {**self.wanted, **self._checked(plan)}
        changed = wanted != self.wanted
        self.wanted, self.reason = wanted, plan.reason
        return changed

    def _checked(self, plan: ScalePlan) -> dict[Role, int]:
        if type(plan) is not ScalePlan or not all(
            role in self.configured and type(count) is int and count > 0 for role, count in plan.targets.items()
        ):
            self._refuse(plan)
        if self.most is None and any(count > MAX_INSTANCES for count in plan.targets.values()):
            self._refuse(plan)
        most = self.most or MAX_INSTANCES
        return {role: min(count, most) for role, count in plan.targets.items()}

    def _refuse(self, plan: object) -> None:
        roles = ", ".join(sorted(self.configured))
        raise PolicyError(
            f"scaling policy {self.policy.name!r} decided {plan}; allowed: a count of 1 to {self.most or MAX_INSTANCES}"
            f" for each of {roles}"
        )


def count_roles(roles: Iterable[Role]) -> dict[Role, int]:
    """How many instances of each role."""
    return dict(Counter(roles))


def check_interval(policy: ScalingPolicy) -> float | None:
    """The policy's interval; raises PolicyError where it is none."""
    interval_s = policy.interval_s
    if interval_s is not None and not (isinstance(interval_s, int | float) and isfinite(interval_s) and interval_s > 0):
        raise PolicyError(f"scaling policy {policy.name!r} has interval_s {interval_s!r}; allowed: above 0, or None")
    return interval_s
