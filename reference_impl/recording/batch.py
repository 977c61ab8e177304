"""A batch policy that is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from policies.api import BatchPlan, BatchPolicy, LaneView, SequenceView
from reference_impl.recording.answers import Answers
from reference_impl.recording.lane import RecordedLane
from reference_impl.recording.rows import LaneTotals, decision_row
from reference_impl.recording.wrapped import Wrapped

SequenceRow = tuple[int, int, int, int, int]
"""Request id, then the numbers of a SeenSequence."""


class RecordedBatch(Wrapped[BatchPolicy]):
    """Hands every call on to ``policy`` and writes down the whole lane and the plan: O(sequences) per call."""

    def __init__(self, policy: BatchPolicy, write: Callable[..., None]) -> None:
        super().__init__(policy)
        self._write = write
        self._told: set[int] = set()
        """Requests that were in the lane at the decision before."""

    def plan(self, lane: LaneView) -> BatchPlan:
        """The policy's decision."""
        totals = LaneTotals(*[getattr(lane, name) for name in LaneTotals._fields])
        groups = [_rows(group) for group in (lane.waiting, lane.prefilling, lane.decodes, lane.paused)]
        self._tell(lane)
        answers: Answers = []
        plan = self.policy.plan(RecordedLane(lane, totals, answers))
        self._write("plan", totals, *groups, answers, decision_row(plan))
        return plan

    def _tell(self, lane: LaneView) -> None:
        """Write the requests that were not in the lane at the decision before."""
        here = set()
        for group in (lane.waiting, lane.prefilling, lane.decodes, lane.paused):
            for sequence in group:
                here.add(sequence.request_id)
                if sequence.request_id not in self._told:
                    self._write("request", sequence.request)
        self._told = here


def _rows(sequences: Iterable[SequenceView]) -> list[SequenceRow]:
    return [(s.request_id, s.target_tokens, s.computed_tokens, s.context_tokens, s.generated_tokens) for s in sequences]
