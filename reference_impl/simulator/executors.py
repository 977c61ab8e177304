"""The job executors in virtual time: requests take turns with them, and each decides for its own.

As in the live deployment: every job executor has a policy object and a view of the instances of its own; an instance
reports to all of them at once; a request stays with its job executor, whatever it is asked about, and only that one's
policy is told what becomes of it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from policies.api import Estimate, InstanceView, Phase, PolicyEvent
from reference_impl.core.router import Router
from reference_impl.core.spec import ClusterSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reference_impl.core.sequence import Sequence as Request
    from reference_impl.simulator.handover import Parcel


class JobExecutor:
    """One job executor: its decisions, and what its policy has left undecided."""

    __slots__ = ("queued", "router", "unrouted")

    def __init__(self, router: Router) -> None:
        self.router = router
        self.queued: deque[Request] = deque()
        """Requests that its policy has left waiting, first come first."""
        self.unrouted: deque[Parcel] = deque()
        """Hand-overs without a decode instance, first come first."""

    @property
    def waits(self) -> bool:
        """Whether anything is undecided."""
        return bool(self.queued or self.unrouted)


class JobExecutors:
    """All of them."""

    def __init__(self, spec: ClusterSpec, requests: int, estimate: Estimate, members: Sequence[InstanceView]) -> None:
        self._all = tuple(
            JobExecutor(Router(policy, spec.report_delay_s, estimate, members))
            for policy in (spec.dispatch, *spec.other_executors)
        )
        self._routers = tuple(executor.router for executor in self._all)
        self._undecided = tuple(queue for executor in self._all for queue in (executor.queued, executor.unrouted))
        self._of = [self._all[0]] * requests
        self._turn = 0
        self.observed = any(executor.router.observer is not None for executor in self)
        """Whether a policy keeps count of events."""

    def __iter__(self) -> Iterator[JobExecutor]:
        return iter(self._all)

    def assign(self, request_id: int) -> None:
        """A new request belongs to the job executor whose turn it is."""
        if len(self._all) > 1:
            self._of[request_id] = self._all[self._turn % len(self._all)]
            self._turn += 1

    def of(self, request_id: int) -> JobExecutor:
        """Who decides for this request."""
        return self._of[request_id]

    def join(self, view: InstanceView) -> None:
        """One more instance is ready."""
        for executor in self._all:
            executor.router.join(view)

    def leave(self, instance_id: int) -> None:
        """An instance gets no more requests."""
        for executor in self._all:
            executor.router.leave(instance_id)

    def serves(self, phase: Phase) -> bool:
        """Whether there is an instance for this phase."""
        return self._all[0].router.serves(phase)

    def report(self, view: InstanceView) -> None:
        """An instance reports itself to everybody as it is now."""
        for router in self._routers:
            router.report(view)

    def notify(self, event: PolicyEvent) -> None:
        """Tell the policy that decides for this request, if it observes."""
        self._of[event.request_id].router.notify(event)

    @property
    def waiting(self) -> bool:
        """Whether anything is undecided."""
        return any(self._undecided)

    @property
    def next_report_s(self) -> float | None:
        """When the next report becomes known to a job executor with something undecided."""
        due = [executor.router.next_report_s for executor in self._all if executor.waits]
        return min((at_s for at_s in due if at_s is not None), default=None)
