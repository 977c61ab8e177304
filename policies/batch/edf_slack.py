"""The prompt that must start soonest goes first.

Idea
    A request's deadline is its arrival plus its TTFT target; its slack is the deadline less now and less the predicted
    time of its prefill. All slacks shrink alike, so the order is that of the latest start (deadline less prefill
    time), which never changes. A prompt that can no longer make it (its latest start has passed) is hopeless: it goes
    behind those that can, since a batch policy cannot refuse it; under lasting overload it may wait for long. Who is
    hopeless is judged at each arrival and admission, so that the order changes with the queue and plans hold. A
    preempted request has had its first token and goes first. Batches are those of unified_budget.
Reads
    Arrival, prompt tokens and SLO class of who waits; the time; the latency estimate; blocks and limits of the lane.
Parameters
    ttft_s: TTFT target of a class that class_ttft_s does not name, seconds.
    class_ttft_s: targets by SLO class, such as interactive=0.5/batch=30.
    order: slack, or deadline (earliest deadline first; a prompt is then hopeless when its deadline has passed).
    hopeless: last, or as_due (plain order, hopeless or not).
    token_budget: tokens of one iteration; none: the engine's limit.
Source
    Earliest deadline first (Liu and Layland 1973) and least slack, as in llm-d's flow control (SLO deadline ordering)
    and vLLM PR 53571, which drops the hopeless; a target for everybody is OURS.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, Choice, LaneView, PolicyKind, Range, SequenceView
from policies.batch.classes import class_seconds
from policies.batch.mixed import ordered
from policies.batch.waiting_line import WaitingLine

_ROUNDING_S = 1e-6
"""A prompt is late only by more than this, so that nothing hangs on the last bits of a time."""


class _DueLine(WaitingLine):
    """Knows when somebody came or was admitted last: in simulated time, whenever it is asked."""

    changed_s = -inf
    _asked_s = -inf

    def follow(self, lane: LaneView) -> None:
        super().follow(lane)
        self._asked_s = lane.now_s

    def arrived(self, sequence: SequenceView) -> None:
        super().arrived(sequence)
        self.changed_s = max(self.changed_s, sequence.request.arrival_s)

    def left(self, request_id: int) -> None:
        super().left(request_id)
        self.changed_s = max(self.changed_s, self._asked_s)


@dataclass
class EdfSlack:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "edf_slack"
    ttft_s: Annotated[float, Range(0.001, 3600, log=True)] = 1.0
    class_ttft_s: str = ""
    order: Annotated[str, Choice("slack", "deadline")] = "slack"
    hopeless: Annotated[str, Choice("last", "as_due")] = "last"
    token_budget: Annotated[int | None, Range(1, 131072, log=True)] = None
    rng: random.Random = field(init=False, repr=False)
    _targets: dict[str, float] = field(init=False, repr=False)
    _line: _DueLine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._targets = class_seconds("class_ttft_s", self.class_ttft_s)
        self._line = _DueLine(self.latest_start_s)

    def plan(self, lane: LaneView) -> BatchPlan:
        if not lane.waiting and not lane.prefilling:
            return DECODE_ALL
        self._line.follow(lane)
        judged_s = self._line.changed_s - _ROUNDING_S if self.hopeless == "last" else -inf
        return ordered(lane, self.token_budget, self._line.walk(judged_s))

    def latest_start_s(self, lane: LaneView, sequence: SequenceView) -> float:
        """When the prefill must start so that the first token is in time (``deadline``: when it is due)."""
        if sequence.generated_tokens:
            return -inf
        request = sequence.request
        deadline_s = request.arrival_s + self._targets.get(request.slo_class or "", self.ttft_s)
        if self.order == "deadline":
            return deadline_s
        return deadline_s - lane.estimate.prefill_s(sequence.target_tokens)
