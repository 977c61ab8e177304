"""A job executor's decisions: what it knows of the instances, and what its dispatch policy makes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from policies.api import (
    Dispatch,
    DispatchPolicy,
    Estimate,
    InstanceView,
    Phase,
    PolicyError,
    PolicyEvent,
    Reject,
    RequestView,
    Role,
)
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.hearing import Hearing
from reference_impl.core.moments import time_key

PHASE_ROLES: dict[Phase, frozenset[Role]] = {
    "prefill": frozenset(("colocated", "prefill", "semi_pd")),
    "decode": frozenset(("decode",)),
}
"""Which instances are asked about at all: those that prefill a new request, and those that take one over."""
TAKES_OVER: frozenset[Role] = frozenset(("colocated", "decode"))
"""Which may be named at dispatch as a request's decode instance."""


class KnownCluster:
    """One phase's instances as the job executor knows them; satisfies ``policies.api.ClusterView``."""

    __slots__ = ("estimate", "instances", "known", "now_s", "phase", "place")

    def __init__(self, phase: Phase, estimate: Estimate) -> None:
        self.phase: Phase = phase
        self.now_s = 0.0
        self.estimate = estimate
        self.known: list[InstanceView] = []
        self.instances: tuple[InstanceView, ...] = ()
        """What the policy is shown of :attr:`known`."""
        self.place: dict[int, int] = {}

    def set_members(self, views: Sequence[InstanceView]) -> None:
        """The instances are these from now on; of one that stays, the younger of the two views stands."""
        before = {view.instance_id: view for view in self.known}
        chosen = {view.instance_id: view for view in views if view.role in PHASE_ROLES[self.phase]}
        self.known = [
            max(before.get(instance_id, view), view, key=lambda known: known.observed_at_s)
            for instance_id, view in sorted(chosen.items())
        ]
        self.place = {view.instance_id: place for place, view in enumerate(self.known)}


class Router:
    """Keeps reported views and asks the dispatch policy; checks what it answers.

    A view is taken when an instance reports and becomes known ``delay_s`` later.  ``members`` are the ready instances,
    as they are known at the start.
    """

    def __init__(
        self, policy: DispatchPolicy, delay_s: float, estimate: Estimate, members: Sequence[InstanceView]
    ) -> None:
        self.policy = policy
        self._hearing = Hearing(policy, delay_s)
        self.observer = self._hearing.observer
        self._delay_s = delay_s
        self._reported: deque[tuple[float, InstanceView]] = deque()
        self._prefill = KnownCluster("prefill", estimate)
        self._decode = KnownCluster("decode", estimate)
        self._seats: dict[int, list[tuple[list[InstanceView], int]]] = {}
        """Where an instance's view goes."""
        self._takers: frozenset[int] = frozenset()
        """Who may be named as decode instance."""
        self.set_members(members)

    def set_members(self, views: Sequence[InstanceView]) -> None:
        """Instances came or went: ``views`` are the ready ones. What is under way of others is forgotten."""
        self._seats = {view.instance_id: [] for view in views}
        self._takers = frozenset(view.instance_id for view in views if view.role in TAKES_OVER)
        for cluster in (self._prefill, self._decode):
            cluster.set_members(views)
            for instance_id, place in cluster.place.items():
                self._seats[instance_id].append((cluster.known, place))

    def join(self, view: InstanceView) -> None:
        """One more instance is ready."""
        self.set_members([*self._members(), view])

    def leave(self, instance_id: int) -> None:
        """An instance gets no more requests, and what it has reported is not to be learnt any more."""
        self._reported = deque(report for report in self._reported if report[1].instance_id != instance_id)
        self.set_members([view for view in self._members() if view.instance_id != instance_id])

    def serves(self, phase: Phase) -> bool:
        """Whether there is an instance for this phase."""
        return bool((self._prefill if phase == "prefill" else self._decode).known)

    def decodes_on(self, instance_id: int) -> bool:
        """Whether this instance takes requests over, now."""
        return instance_id in self._takers

    def _members(self) -> list[InstanceView]:
        known = (*self._prefill.known, *self._decode.known)
        return list({view.instance_id: view for view in known}.values())

    def report(self, view: InstanceView) -> None:
        """An instance reports itself as it is now."""
        if self._delay_s:
            self._reported.append((view.observed_at_s + self._delay_s, view))
            return
        for instances, place in self._seats.get(view[0], ()):  # as _know, without the call: this is the hot path
            instances[place] = view

    @property
    def next_report_s(self) -> float | None:
        """When the next report that is under way becomes known."""
        return self._reported[0][0] if self._reported else None

    def notify(self, event: PolicyEvent) -> None:
        """Tell an observing policy what happened, once the report delay has passed."""
        self._hearing.notify(event)

    def route(self, request: RequestView, phase: Phase, now_s: float) -> Dispatch | Reject | None:
        """The policy's decision; None, also where no instance serves this phase: ask again when one reports or comes.

        Raises PolicyError for a decision that names an instance which the policy was not shown.
        """
        cluster = self._prefill if phase == "prefill" else self._decode
        if self._reported or self._hearing.under_way:
            self._learn(now_s)
        if not cluster.known:
            return None
        cluster.now_s = now_s
        cluster.instances = tuple(cluster.known)
        try:
            decision = self.policy.dispatch(request, cluster)
        except RAISED as error:
            doing = f"dispatching request {request.request_id} at {now_s:.6f} s"
            raise policy_failure(self.policy, doing, error) from error
        self._check(request, decision, cluster)
        return decision

    def _check(self, request: RequestView, decision: Dispatch | Reject | None, cluster: KnownCluster) -> None:
        if type(decision) is Dispatch:
            if type(decision.instance_id) is not int or decision.instance_id not in cluster.place:
                self._refuse(request, decision, f"one of the instances {sorted(cluster.place)}")
            chosen = decision.decode_instance_id
            if chosen is not None and (type(chosen) is not int or chosen not in self._takers):
                self._refuse(
                    request, decision, f"one of the decode and colocated instances {sorted(self._takers)} or none"
                )
            if decision.reason is not None and type(decision.reason) is not str:
                self._refuse(request, decision, "a text as reason, or none")
        elif type(decision) is Reject and type(decision.reason) is not str:
            self._refuse(request, decision, "a text as reason")
        elif decision is not None and type(decision) is not Reject:
            self._refuse(request, decision, "a Dispatch, a Reject or None")

    def _learn(self, now_s: float) -> None:
        key = time_key(now_s)
        while self._reported and time_key(self._reported[0][0]) <= key:
            self._know(self._reported.popleft()[1])
        self._hearing.learn(now_s)

    def _know(self, view: InstanceView) -> None:
        for instances, place in self._seats.get(view[0], ()):
            instances[place] = view

    def _refuse(self, request: RequestView, decision: object, allowed: str) -> None:
        name = getattr(self.policy, "name", type(self.policy).__name__)
        raise PolicyError(
            f"dispatch policy {name!r} decided {decision} for request {request.request_id}; allowed: {allowed}"
        )
