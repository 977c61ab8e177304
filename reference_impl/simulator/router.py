"""The job executor in the simulator: what it knows of the instances, and its decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from policies.api import (
    Dispatch,
    Estimate,
    InstanceView,
    Observer,
    Phase,
    PolicyError,
    PolicyEvent,
    Reject,
    RequestView,
)
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.instance import PREFILL_ROLES, Instance
from reference_impl.core.spec import ClusterSpec
from reference_impl.latency.estimate import ModelEstimate
from reference_impl.simulator.order import time_key


class KnownCluster:
    """One phase's instances as the job executor knows them; satisfies ``policies.api.ClusterView``."""

    __slots__ = ("estimate", "instances", "known", "now_s", "phase", "place")

    def __init__(self, phase: Phase, members: Sequence[Instance], estimate: Estimate) -> None:
        self.phase: Phase = phase
        self.now_s = 0.0
        self.estimate = estimate
        self.known: list[InstanceView] = [member.view(0.0) for member in members]
        self.instances = tuple(self.known)
        """What the policy is shown of :attr:`known`."""
        self.place = {member.instance_id: place for place, member in enumerate(members)}


class Router:
    """Keeps reported views and asks the dispatch policy; checks what it answers.

    A view is taken when an instance reports and becomes known ``report_delay_s`` later.
    """

    def __init__(self, spec: ClusterSpec, instances: Sequence[Instance]) -> None:
        policy = self.policy = spec.dispatch
        self.observer = policy if isinstance(policy, Observer) else None
        self._delay_s = spec.report_delay_s
        estimate = ModelEstimate(spec.instances[0].latency)
        self._reported: deque[tuple[float, InstanceView]] = deque()
        self._events: deque[tuple[float, PolicyEvent]] = deque()
        prefill = [i for i in instances if i.spec.role in PREFILL_ROLES]
        self._prefill = KnownCluster("prefill", prefill, estimate)
        self._decode = KnownCluster("decode", [i for i in instances if i.spec.role == "decode"], estimate)
        self._seats = {
            instance.instance_id: [
                (cluster.known, cluster.place[instance.instance_id])
                for cluster in (self._prefill, self._decode)
                if instance.instance_id in cluster.place
            ]
            for instance in instances
        }
        """Where an instance's view goes."""

    def report(self, view: InstanceView) -> None:
        """An instance reports itself as it is now."""
        if self._delay_s:
            self._reported.append((view.observed_at_s + self._delay_s, view))
        else:
            self._know(view)

    @property
    def next_report_s(self) -> float | None:
        """When the next report that is under way becomes known."""
        return self._reported[0][0] if self._reported else None

    def notify(self, event: PolicyEvent) -> None:
        """Tell an observing policy what happened, once the report delay has passed."""
        if self.observer is not None:
            self._events.append((event.at_s + self._delay_s, event))

    def route(self, request: RequestView, phase: Phase, now_s: float) -> Dispatch | Reject | None:
        """The policy's decision. Raises PolicyError for one that names an instance it was not shown."""
        cluster = self._prefill if phase == "prefill" else self._decode
        if self._reported or self._events:
            self._learn(now_s)
        cluster.now_s = now_s
        cluster.instances = tuple(cluster.known)
        try:
            decision = self.policy.dispatch(request, cluster)
        except RAISED as error:
            doing = f"dispatching request {request.request_id} at {now_s:.6f} s"
            raise policy_failure(self.policy, doing, error) from error
        if type(decision) is Dispatch:
            if type(decision.instance_id) is not int or decision.instance_id not in cluster.place:
                self._refuse(request, decision, f"one of the instances {sorted(cluster.place)}")
            chosen = decision.decode_instance_id
            if chosen is not None and (type(chosen) is not int or chosen not in self._decode.place):
                self._refuse(request, decision, f"one of the decode instances {sorted(self._decode.place)} or none")
            if decision.reason is not None and type(decision.reason) is not str:
                self._refuse(request, decision, "a text as reason, or none")
        elif type(decision) is Reject and type(decision.reason) is not str:
            self._refuse(request, decision, "a text as reason")
        elif decision is not None and type(decision) is not Reject:
            self._refuse(request, decision, "a Dispatch, a Reject or None")
        return decision

    def _learn(self, now_s: float) -> None:
        key = time_key(now_s)
        while self._reported and time_key(self._reported[0][0]) <= key:
            self._know(self._reported.popleft()[1])
        while self._events and self.observer is not None and time_key(self._events[0][0]) <= key:
            event = self._events.popleft()[1]
            try:
                self.observer.observe(event)
            except RAISED as error:
                raise policy_failure(self.policy, f"observing {event}", error) from error

    def _know(self, view: InstanceView) -> None:
        for instances, place in self._seats[view[0]]:
            instances[place] = view

    def _refuse(self, request: RequestView, decision: object, allowed: str) -> None:
        name = getattr(self.policy, "name", type(self.policy).__name__)
        raise PolicyError(
            f"dispatch policy {name!r} decided {decision} for request {request.request_id}; allowed: {allowed}"
        )
