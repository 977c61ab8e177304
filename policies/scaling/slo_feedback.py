"""One instance more while targets are missed, one fewer after a quiet time with head-room.

Idea
    Attainment is that of the last ``window_s`` of finished requests, since the last change at most. Below ``target``:
    one instance more; where prefill and decode are apart, of the role whose own target, TTFT or TPOT, is missed more.
    At ``target`` + ``headroom`` or more for ``cooldown_s`` without a change: one fewer, of the role that has more.
    Nothing is decided while an instance is about to serve, nor on fewer than ``least_requests``.
Reads
    Attainment and number of the requests finished in the interval, together and by target; how many instances serve.
Parameters
    target: share of the requests that should meet their targets.
    headroom: how far above it attainment has to be before an instance is let go.
    window_s: seconds of finished requests that count.
    cooldown_s: quiet time before an instance is let go.
    least_requests: finished requests that a decision needs.
    interval_s: seconds between two decisions.
Source
    DeepServe (arXiv 2501.14417, section 6): its autoscaler goes by load or by the rate of SLO violations; no rule or
    threshold is published. This rule and its defaults are OURS.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, NamedTuple

from policies.api import FleetView, PolicyKind, Range, Role, ScalePlan


class _Seen(NamedTuple):
    """One interval's finished requests: how many, and how many met their targets, both, TTFT, TPOT."""

    at_s: float
    requests: int
    met: float
    met_ttft: float
    met_tpot: float


@dataclass
class SloFeedback:
    kind: ClassVar[PolicyKind] = "scaling"
    name: ClassVar[str] = "slo_feedback"
    target: Annotated[float, Range(0, 1)] = 0.9
    headroom: Annotated[float, Range(0, 1)] = 0.05
    window_s: Annotated[float, Range(0.1, 3600, log=True)] = 60.0
    cooldown_s: Annotated[float, Range(0, 36000)] = 300.0
    least_requests: Annotated[int, Range(1, 10_000)] = 10
    interval_s: Annotated[float, Range(0.1, 3600, log=True)] = 15.0
    rng: random.Random = field(init=False, repr=False)
    _window: list[_Seen] = field(init=False, repr=False, default_factory=list)
    _quiet_since_s: float = field(init=False, repr=False, default=0.0)

    def scale(self, fleet: FleetView) -> ScalePlan:
        self._note(fleet)
        if any(fleet.missing(role) for role in fleet.configured):
            self._quiet_since_s = fleet.now_s
            self._window.clear()  # they were served by a smaller fleet than is wanted
            return ScalePlan({})
        requests = sum(seen.requests for seen in self._window)
        if requests < self.least_requests:
            return ScalePlan({})
        attainment = sum(seen.met for seen in self._window) / requests
        if attainment < self.target:
            return self._step(fleet, self._tightest(fleet), 1, attainment)
        if attainment < min(self.target + self.headroom, 1.0):
            self._quiet_since_s = fleet.now_s
        elif fleet.now_s - self._quiet_since_s >= self.cooldown_s:
            return self._step(fleet, max(fleet.configured, key=fleet.target), -1, attainment)
        return ScalePlan({})

    def _note(self, fleet: FleetView) -> None:
        served = fleet.served
        self._window = [seen for seen in self._window if seen.at_s > fleet.now_s - self.window_s]
        if served.requests:
            shares = (fleet.attainment, served.attainment_ttft, served.attainment_tpot)
            met = [served.requests * (share if share is not None else 1.0) for share in shares]
            self._window.append(_Seen(fleet.now_s, served.requests, *met))

    def _tightest(self, fleet: FleetView) -> Role:
        """The role to have one more of."""
        if not {"prefill", "decode"} <= set(fleet.configured):
            return next(iter(fleet.configured))
        by_target = (sum(seen.met_ttft for seen in self._window), sum(seen.met_tpot for seen in self._window))
        return "prefill" if by_target[0] <= by_target[1] else "decode"

    def _step(self, fleet: FleetView, role: Role, step: int, attainment: float) -> ScalePlan:
        wanted = fleet.target(role) + step
        if wanted < 1:
            return ScalePlan({})
        self._window.clear()
        self._quiet_since_s = fleet.now_s
        return ScalePlan({role: wanted}, f"attainment {attainment:.3f}, target {self.target:g}")
