"""What the policies saw and decided of one request: heard while they run, or picked from recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from policies.api import (
    BatchPlan,
    BatchPolicy,
    DispatchPolicy,
    InstanceView,
    LaneKind,
    LaneView,
    Observer,
    Phase,
)
from reference_impl.recording.dispatch import RecordedDispatch, RecordedObserver
from reference_impl.recording.replay import RecordingError, lines
from reference_impl.recording.rows import LaneTotals, Row
from reference_impl.recording.wrapped import Wrapped

_PLAN_CHUNKS, _PLAN_DECODE, _PLAN_SKIP = 1, 2, 3
"""Places in the row of a plan."""


class Asked(NamedTuple):
    """The dispatch policy was asked about the request."""

    phase: Phase
    now_s: float
    instances: tuple[InstanceView, ...]
    """As the policy was shown them."""
    answers: Sequence[Sequence[Any]]
    """The latency model's, each ``[name, arguments..., seconds]``."""
    decision: Row | str | None


class Planned(NamedTuple):
    """A batch policy's plan that computes a part of the request's prompt; it holds until the lane's next plan."""

    instance_id: int
    lane: LaneKind
    from_s: float
    until_s: float
    tokens: int
    """Of the request, in each iteration."""
    beside: tuple[tuple[int, int], ...]
    """Whose prompts it computes too, each (request, tokens)."""
    decodes: int


@dataclass
class Heard:
    """What was heard of request ``request_id``. Also what a recorded dispatch policy writes to."""

    request_id: int
    asked: list[Asked] = field(default_factory=list)
    plans: list[Planned] = field(default_factory=list)
    _views: dict[int, InstanceView] = field(default_factory=dict)
    _shown: tuple[int, ...] = ()
    _open: dict[tuple[int, LaneKind], int] = field(default_factory=dict)
    """Instance and lane -> the plan in force there, if it is one of :attr:`plans`."""

    def __call__(self, kind: str, *cells: Any) -> None:
        """Take one line of one dispatch policy."""
        if kind == "see":
            view = InstanceView(*cells[0])
            self._views[view.instance_id] = view
        elif kind == "dispatch":
            request, phase, now_s, shown, answers, decision = cells
            if shown is not None:
                self._shown = tuple(shown)
            if request[0] == self.request_id:
                views = tuple(self._views[instance_id] for instance_id in self._shown)
                self.asked.append(Asked(phase, now_s, views, answers, decision))

    def plan(
        self, instance_id: int, lane: LaneKind, now_s: float, chunks: Sequence[Sequence[int]], decodes: int
    ) -> None:
        """Take one plan of any lane."""
        before = self._open.pop((instance_id, lane), None)
        if before is not None:
            self.plans[before] = self.plans[before]._replace(until_s=now_s)
        own = [tokens for request_id, tokens in chunks if request_id == self.request_id]
        if own:
            self._open[instance_id, lane] = len(self.plans)
            others = tuple((request_id, tokens) for request_id, tokens in chunks if request_id != self.request_id)
            self.plans.append(Planned(instance_id, lane, now_s, float("inf"), own[0], others, decodes))

    def of_another(self) -> Heard:
        """For one more policy object: what it is shown is its own, what was heard comes together."""
        return Heard(self.request_id, self.asked, self.plans, _open=self._open)

    def dispatch_policy(self, policy: DispatchPolicy) -> DispatchPolicy:
        """The same policy, heard."""
        kind = RecordedObserver if isinstance(policy, Observer) else RecordedDispatch
        return cast(DispatchPolicy, kind(policy, self.of_another()))

    def batch_policies(self, factory: Callable[[int], Any]) -> Callable[[int], Any]:
        """The same factory of batch policies, each of them heard."""
        return lambda seed: HeardBatch(factory(seed), self)


class HeardBatch(Wrapped[BatchPolicy]):
    """Hands every call on to ``policy``."""

    def __init__(self, policy: BatchPolicy, heard: Heard) -> None:
        super().__init__(policy)
        self._heard = heard

    def plan(self, lane: LaneView) -> BatchPlan:
        """The policy's decision."""
        plan = self.policy.plan(lane)
        if type(plan) is BatchPlan:
            decodes = len(lane.decodes) + len(lane.paused) - len(plan.skip) if plan.decode else 0
            self._heard.plan(lane.instance_id, lane.kind, lane.now_s, plan.prefills, decodes)
        return plan


def listen(path: Path, request_id: int) -> Heard:
    """What a recording holds of the request. Raises RecordingError."""
    found = Heard(request_id)
    policies: dict[int, Heard] = {}
    for line, row in lines(path):
        try:
            number, kind, *cells = row
            if kind == "policy":
                policies[number] = found.of_another()
            elif kind == "plan":
                _hear_plan(policies[number], *cells)
            else:
                policies[number](kind, *cells)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise RecordingError(f"{path}, line {line}: not a line of a recording ({error!r}); record anew") from error
    return found


def _hear_plan(heard: Heard, totals: Row, *rest: Any) -> None:
    _, _, decodes, paused, _, said = rest
    if isinstance(said, list):
        seen = LaneTotals(*totals)
        taking_part = len(decodes) + len(paused) - len(said[_PLAN_SKIP]) if said[_PLAN_DECODE] else 0
        heard.plan(seen.instance_id, seen.kind, seen.now_s, said[_PLAN_CHUNKS], taking_part)
