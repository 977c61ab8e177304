"""The cluster manager's side of scaling: what the policy is shown, and what it wants."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from policies.api import Estimate, FleetView, InstanceView, Role, ScalingPolicy
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.scaling import Targets
from reference_impl.core.tally import NONE, Counts, total
from reference_impl.serve.registry import Entry

_LOG = logging.getLogger(__name__)


class Interval(NamedTuple):
    """What came between two looks."""

    rate_rps: float
    last: Counts
    outstanding_requests: int


class Traffic:
    """What the front doors count; one that was replaced begins at 0 again."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Counts] = {}
        self._outstanding = 0
        self._before = NONE
        self._before_s: float | None = None

    def note(self, front_doors: Iterable[Entry]) -> None:
        """What the front doors say now."""
        self._outstanding = 0
        for entry in front_doors:
            self._known[entry.seat, entry.generation] = entry.beat.counts
            self._outstanding += entry.beat.in_flight

    def since_last(self, now_s: float) -> Interval:
        """What came since the last call."""
        now = total(NONE, *self._known.values())
        last = now.since(self._before)
        span_s = now_s - self._before_s if self._before_s is not None else now_s
        self._before, self._before_s = now, now_s
        return Interval(last.arrived / span_s if span_s > 0 else 0.0, last, self._outstanding)


class Scaler:
    """Keeps how many instances of each role there should be."""

    def __init__(
        self,
        policy: ScalingPolicy,
        configured: Mapping[Role, int],
        estimate: Estimate | None = None,
        most: int | None = None,
    ) -> None:
        self._policy = policy
        self._decided = Targets(policy, configured, most)
        self._estimate = estimate
        self._asked_s: float | None = None
        self._complained = False

    @property
    def targets(self) -> dict[Role, int]:
        """How many there should be."""
        return self._decided.wanted

    @property
    def reason(self) -> str | None:
        """Why, as the policy says."""
        return self._decided.reason

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

    def ask(self, views: tuple[InstanceView, ...], seen: Interval, now_s: float) -> bool:
        """Ask the policy; whether the targets changed. A policy that fails leaves them as they are."""
        self._asked_s = now_s
        decided = self._decided
        fleet = FleetView(
            now_s,
            views,
            seen.rate_rps,
            seen.last.attainment,
            dict(decided.configured),
            dict(decided.wanted),
            seen.last.served(),
            seen.outstanding_requests,
            self._estimate,
        )
        try:
            return decided.ask(fleet)
        except RAISED as error:
            _LOG.error("%s", policy_failure(self._policy, f"scaling at {now_s:.3f} s", error))
            return False
