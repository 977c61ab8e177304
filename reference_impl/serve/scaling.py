"""The cluster manager's side of scaling: what the policy is shown, and what it wants."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from policies.api import FleetView, InstanceView, PolicyError, Role, ScalePlan, ScalingPolicy
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.serve.registry import Entry

_LOG = logging.getLogger(__name__)
MAX_INSTANCES = 256
"""Of one role: more is taken for a slip."""


class Counts(NamedTuple):
    """Requests of all front doors since the start."""

    arrived: int = 0
    finished: int = 0
    met_slo: int = 0


class Traffic:
    """Arrivals and attainment between two looks; a front door that was replaced begins at 0 again."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Counts] = {}
        self._before = Counts()
        self._before_s: float | None = None

    def note(self, front_doors: Iterable[Entry]) -> None:
        """What the front doors say now."""
        for entry in front_doors:
            beat = entry.beat
            self._known[entry.seat, entry.generation] = Counts(beat.arrived, beat.finished, beat.met_slo)

    def since_last(self, now_s: float) -> tuple[float, float | None]:
        """Arrivals per second, and the attainment of what finished (None: nothing did), since the last call."""
        total = (
            Counts(*(sum(column) for column in zip(*self._known.values(), strict=True))) if self._known else Counts()
        )
        arrived, finished, met = (now - then for now, then in zip(total, self._before, strict=True))
        span_s = now_s - self._before_s if self._before_s is not None else now_s
        self._before, self._before_s = total, now_s
        return (arrived / span_s if span_s > 0 else 0.0), (met / finished if finished else None)


class Scaler:
    """Keeps how many instances of each role there should be."""

    def __init__(self, policy: ScalingPolicy, configured: Mapping[Role, int]) -> None:
        self._policy = policy
        self._configured = dict(configured)
        self.targets: dict[Role, int] = dict(configured)
        self.reason: str | None = None
        self._asked_s: float | None = None
        self._complained = False

    def due(self, now_s: float) -> bool:
        """Whether the policy is to be asked: once, or every ``interval_s``; once where that is no number."""
        if self._asked_s is None:
            return True
        try:
            interval_s = self._policy.interval_s
            return interval_s is not None and now_s - self._asked_s >= interval_s
        except RAISED as error:
            if not self._complained:
                _LOG.error("%s", policy_failure(self._policy, "its interval_s was looked at", error))
            self._complained = True
            return False

    def ask(self, views: tuple[InstanceView, ...], rate_rps: float, attainment: float | None, now_s: float) -> bool:
        """Ask the policy; whether the targets changed. A policy that fails leaves them as they are."""
        self._asked_s = now_s
        fleet = FleetView(now_s, views, rate_rps, attainment, self._configured)
        try:
            targets = self._checked(self._policy.scale(fleet))
        except RAISED as error:
            _LOG.error("%s", policy_failure(self._policy, f"scaling at {now_s:.3f} s", error))
            return False
        changed = targets != self.targets
        self.targets = targets
        return changed

    def _checked(self, plan: ScalePlan) -> dict[Role, int]:
        wrong = [role for role in plan.targets if role not in self._configured] if type(plan) is ScalePlan else ["?"]
        allowed = f"a count of 1 to {MAX_INSTANCES} for each of {', '.join(sorted(self._configured))}"
        if wrong or any(type(count) is not int or not 0 < count <= MAX_INSTANCES for count in plan.targets.values()):
            raise PolicyError(f"scaling policy {self._policy.name!r} decided {plan}; allowed: {allowed}")
        self.reason = plan.reason
        return {**self.targets, **plan.targets}


def count_roles(roles: Iterable[Role]) -> dict[Role, int]:
    """How many instances of each role."""
    return dict(Counter(roles))
