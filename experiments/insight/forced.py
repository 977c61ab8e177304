"""A dispatch policy with somebody beside it, and the question "what if it had sent this one request elsewhere?"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from policies.api import ClusterView, Dispatch, DispatchPolicy, Observer, Phase, PolicyEvent, Reject, RequestView
from reference_impl.recording.wrapped import Wrapped

if TYPE_CHECKING:
    from reference_impl.core.spec import ClusterSpec

Decision = Dispatch | Reject | None
Beside = Callable[[DispatchPolicy, RequestView, ClusterView], Decision]
"""Called in place of the policy, which it asks itself."""
REASON = "forced"


class Accompanied(Wrapped[DispatchPolicy]):
    """A dispatch policy whose every decision goes through ``beside``."""

    def __init__(self, policy: DispatchPolicy, beside: Beside) -> None:
        super().__init__(policy)
        self._beside = beside

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Decision:
        """What comes of asking both."""
        return self._beside(self.policy, request, cluster)


class AccompaniedObserver(Accompanied):
    """The same of a policy that keeps counts of what happened: it is told what was done, not what it had said."""

    def observe(self, event: PolicyEvent) -> None:
        """Tell the policy."""
        assert isinstance(self.policy, Observer)
        self.policy.observe(event)


def accompanied(policy: DispatchPolicy, beside: Beside) -> DispatchPolicy:
    """``policy`` with somebody beside it. An observer stays one."""
    kind = AccompaniedObserver if isinstance(policy, Observer) else Accompanied
    return cast(DispatchPolicy, kind(policy, beside))  # its name is the object's, the protocol's is the class's


def in_every_executor(cluster: ClusterSpec, change: Callable[[DispatchPolicy], DispatchPolicy]) -> ClusterSpec:
    """The cluster with the policy of each job executor changed."""
    dispatch, *others = map(change, (cluster.dispatch, *cluster.other_executors))
    return replace(cluster, dispatch=dispatch, other_executors=tuple(others))


@dataclass
class Force:
    """Asks the policy every time, so that its state and luck go on as they do; of request ``request_id`` the first
    decision of ``phase`` (a refusal too) becomes ``instance_id``. Where that is what the policy decides, its decision
    stands untouched. A request that it leaves queued stays queued."""

    request_id: int
    phase: Phase
    instance_id: int
    done: bool = False

    def __call__(self, policy: DispatchPolicy, request: RequestView, cluster: ClusterView) -> Decision:
        """The policy's decision, or the one that replaces it."""
        decision = policy.dispatch(request, cluster)
        if self.done or request.request_id != self.request_id or decision is None:
            return decision
        if self.phase == cluster.phase:
            self.done = True
            return self._instead(decision)
        if isinstance(decision, Dispatch) and decision.decode_instance_id is not None:  # both phases decided at once
            self.done = True
            return decision._replace(decode_instance_id=self.instance_id)
        return decision

    def _instead(self, decision: Dispatch | Reject) -> Dispatch:
        if isinstance(decision, Reject):
            return Dispatch(self.instance_id, reason=REASON)
        if decision.instance_id == self.instance_id:
            return decision
        return decision._replace(instance_id=self.instance_id, reason=REASON)
