"""A dispatch policy that is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.api import (
    ClusterView,
    Dispatch,
    DispatchPolicy,
    Estimate,
    InstanceView,
    Observer,
    Phase,
    PolicyEvent,
    Reject,
    RequestView,
)
from reference_impl.recording.answers import Answers, RecordedEstimate
from reference_impl.recording.rows import decision_row
from reference_impl.recording.wrapped import Wrapped


class SeenCluster:
    """What the host shows, with an estimate that is recorded; satisfies ``policies.api.ClusterView``."""

    __slots__ = ("estimate", "instances", "now_s", "phase")

    def __init__(self, cluster: ClusterView, estimate: Estimate) -> None:
        self.now_s: float = cluster.now_s
        self.phase: Phase = cluster.phase
        self.instances: Sequence[InstanceView] = cluster.instances
        self.estimate = estimate


class RecordedDispatch(Wrapped[DispatchPolicy]):
    """Hands every call on to ``policy`` and writes down what it was shown and what it said.

    An instance's view is written when it is another object than at the decision before: hosts replace views, they do
    not change them.
    """

    def __init__(self, policy: DispatchPolicy, write: Callable[..., None]) -> None:
        super().__init__(policy)
        self._write = write
        self._known: dict[int, InstanceView] = {}
        self._shown: list[int] = []

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch | Reject | None:
        """The policy's decision."""
        answers: Answers = []
        decision = self.policy.dispatch(request, SeenCluster(cluster, RecordedEstimate(cluster.estimate, answers)))
        shown = self._see(cluster.instances)
        self._write("dispatch", request, cluster.phase, cluster.now_s, shown, answers, decision_row(decision))
        return decision

    def _see(self, instances: Sequence[InstanceView]) -> list[int] | None:
        """Write the views that are new; returns the ids shown, None where they are those of the decision before."""
        known = self._known
        ids = []
        for view in instances:
            instance_id = view[0]
            ids.append(instance_id)
            if known.get(instance_id) is not view:
                known[instance_id] = view
                self._write("see", view)
        if ids == self._shown:
            return None
        self._shown = ids
        return ids


class RecordedObserver(RecordedDispatch):
    """The same of a policy that keeps counts of what happened."""

    def observe(self, event: PolicyEvent) -> None:
        """Tell the policy."""
        assert isinstance(self.policy, Observer)
        self.policy.observe(event)
        self._write("observe", event)
