"""As many instances as keep a metric at its target (Kubernetes' horizontal autoscaler, KEDA).

Idea
    Of each role: desired = ceil(current x metric / target), where the metric is the mean over the instances that serve.
    Nothing changes while metric / target is within ``tolerance`` of 1. Instances that are wanted and do not serve yet
    have no metric: they count as idle where more are wanted, and as on target where fewer are; if that turns the
    direction, nothing changes. At most twice as many, or ``up_instances`` more, whichever is larger, in one interval.
    Fewer only as far as the largest desire of the last ``stabilisation_s`` allows; what there is at the start is one.
Reads
    The instances' reports, the arrival rate, how many instances there should be now.
Parameters
    metric: ``concurrency``, requests on an instance; ``waiting``, those not admitted; ``kv_use``, share of its KV
        blocks; ``rate``, requests per second.
    target: of the metric, per instance.
    tolerance: of the ratio.
    stabilisation_s: how long a desire holds off fewer instances.
    up_instances: how many more one interval may always bring.
    interval_s: seconds between two decisions.
Source
    Kubernetes, Horizontal Pod Autoscaling, "Algorithm details" and "Scaling policies" (defaults: 15 s, tolerance 0.1,
    300 s for scale-in, none for scale-out, the larger of 100 % and 4 pods per 15 s); pods without metrics as in its
    replica_calculator.go. KEDA hands its metrics to the same algorithm. The default target is OURS.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import ceil
from typing import Annotated, ClassVar

from policies.api import Choice, FleetView, InstanceView, PolicyKind, Range, Role, ScalePlan


@dataclass
class TargetTracking:
    kind: ClassVar[PolicyKind] = "scaling"
    name: ClassVar[str] = "target_tracking"
    metric: Annotated[str, Choice("concurrency", "waiting", "kv_use", "rate")] = "concurrency"
    target: Annotated[float, Range(1e-3, 1e4, log=True)] = 16.0
    tolerance: Annotated[float, Range(0, 1)] = 0.1
    stabilisation_s: Annotated[float, Range(0, 3600)] = 300.0
    up_instances: Annotated[int, Range(1, 1000)] = 4
    interval_s: Annotated[float, Range(0.1, 3600, log=True)] = 15.0
    rng: random.Random = field(init=False, repr=False)
    _desires: dict[Role, list[tuple[float, int]]] = field(init=False, repr=False, default_factory=dict)
    """(time, instances) of the stabilisation window, by role."""

    def scale(self, fleet: FleetView) -> ScalePlan:
        return ScalePlan({role: self._stabilised(fleet, role) for role in fleet.configured})

    def _stabilised(self, fleet: FleetView, role: Role) -> int:
        current, now_s = fleet.target(role), fleet.now_s
        most = max(2 * current, current + self.up_instances)
        desired = max(min(self._desired(fleet, role, current), most), 1)
        desires = self._desires.get(role, [(now_s, current)])
        desires = [desire for desire in desires if desire[0] > now_s - self.stabilisation_s]
        self._desires[role] = [*desires, (now_s, desired)]
        return desired if desired >= current else min(max(count for _, count in self._desires[role]), current)

    def _desired(self, fleet: FleetView, role: Role, current: int) -> int:
        ready = fleet.ready(role)
        if not ready:
            return current
        values = [self._value(view, fleet, len(ready)) for view in ready]
        ratio = sum(values) / len(values) / self.target
        missing = fleet.missing(role)
        if not missing:
            return current if self._on_target(ratio) else ceil(ratio * len(ready))
        assumed = self.target if ratio < 1 else 0.0
        again = (sum(values) + missing * assumed) / (len(values) + missing) / self.target
        if self._on_target(again) or (again > 1) != (ratio > 1):
            return current
        desired = ceil(again * (len(values) + missing))
        return current if (desired > current) != (again > 1) else desired

    def _on_target(self, ratio: float) -> bool:
        return abs(ratio - 1) <= self.tolerance

    def _value(self, view: InstanceView, fleet: FleetView, ready: int) -> float:
        match self.metric:
            case "concurrency":
                return view.outstanding_requests
            case "waiting":
                return view.waiting_requests
            case "kv_use":
                return view.kv_use
            case _:
                return fleet.arrival_rate_rps / ready
