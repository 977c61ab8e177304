"""SLO classes in a fixed order, first come first served within one.

Idea
    A waiting request of a higher class goes before all of lower ones. With ``aging_s`` a request counts as one class
    higher for every so many seconds that it waits, so that low classes are served late, but served; their order then
    never changes either (class places times aging, plus arrival). Who runs is not preempted for a higher class.
    Batches are those of unified_budget. Plans hold.
Reads
    Arrival and SLO class of who waits; blocks and limits of the lane.
Parameters
    classes: names of the SLO classes, highest first, such as interactive/standard/batch. Others rank below all.
    aging_s: seconds of waiting that are worth one class; none: a lower class waits as long as a higher one does.
    token_budget: tokens of one iteration; none: the engine's limit.
Source
    vLLM's scheduling policy "priority" (order by priority, then arrival); aging as asked for in vLLM issue 31909.
    The class names and the default of aging_s are OURS.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import DECODE_ALL, BatchPlan, LaneView, PolicyKind, Range, SequenceView
from policies.batch.classes import class_names
from policies.batch.mixed import ordered
from policies.batch.waiting_line import WaitingLine

_FOR_EVER_S = 1e9
"""More than any run lasts, and small enough for arrivals to count beside it to a microsecond."""


@dataclass
class Priority:
    kind: ClassVar[PolicyKind] = "batch"
    name: ClassVar[str] = "priority"
    classes: str = "interactive/standard/batch"
    aging_s: Annotated[float | None, Range(0.001, 86400, log=True)] = 60.0
    token_budget: Annotated[int | None, Range(1, 131072, log=True)] = None
    rng: random.Random = field(init=False, repr=False)
    _places: dict[str, int] = field(init=False, repr=False)
    _line: WaitingLine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._places = class_names(self.classes)
        self._line = WaitingLine(self.rank_s)

    def plan(self, lane: LaneView) -> BatchPlan:
        if not lane.waiting and not lane.prefilling:
            return DECODE_ALL
        self._line.follow(lane)
        return ordered(lane, self.token_budget, self._line.walk())

    def rank_s(self, lane: LaneView, sequence: SequenceView) -> float:
        """The arrival of a request of the highest class that would go as soon as this one."""
        place = self._places.get(sequence.request.slo_class or "", len(self._places))
        return sequence.request.arrival_s + place * (self.aging_s or _FOR_EVER_S)
