"""The decodes of a lane by a rank that falls while they run: what mlfq pauses and resumes by.

The rank of a paused decode stands still, so only those that ran are ranked again: an iteration costs what runs and what
changes, not what is paused.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import NamedTuple

from policies.api import LaneView, SequenceView


class Stay(NamedTuple):
    """A decode on one level: its rank is ``base_s + step_s * generated``, below ``until`` generated tokens."""

    base_s: float
    step_s: float
    until: float
    level: int
    allowed_s: float
    """Quanta of the levels down to this one."""
    quantum_s: float
    """Of this level."""
    first_s: float
    """Its prefill alone."""


Rank = tuple[float, int]
"""Lowest first; ties go to the lower request id."""
NextStay = Callable[[LaneView, SequenceView, Stay | None], Stay]
"""Where a decode stays now, from where it stayed before."""
_ID = attrgetter("request_id")
_SPARE = 256


class RankedDecodes:
    """Mirrors ``lane.decodes`` and ``lane.paused``; :meth:`read` first, then ask."""

    def __init__(self, next_stay: NextStay) -> None:
        self._next_stay = next_stay
        self._stays: dict[int, Stay] = {}
        self._running: list[Rank] = []
        self._paused: list[Rank] = []
        self._skipped: frozenset[int] = frozenset()
        """Ids of the paused, or those that the last plan would pause."""

    def __len__(self) -> int:
        return len(self._running) + len(self._paused)

    def read(self, lane: LaneView) -> None:
        """Catch up with the lane. Of the paused only a change is noticed: someone left, or a plan was not applied."""
        paused = lane.paused
        if len(paused) != len(self._skipped) or self._skipped != set(map(_ID, paused)):
            self._paused = self._ranks(lane, paused)
            self._skipped = frozenset([request_id for _, request_id in self._paused])
        self._running = self._ranks(lane, lane.decodes)
        if len(self._stays) > 2 * len(self) + _SPARE:
            here = [request_id for ranks in (self._running, self._paused) for _, request_id in ranks]
            self._stays = {request_id: self._stays[request_id] for request_id in here}

    def before(self, rank: Rank) -> int:
        """How many decodes go before this rank."""
        return bisect_left(self._running, rank) + bisect_left(self._paused, rank)

    def beyond(self, places: int) -> frozenset[int]:
        """The decodes that are not among the first ``places``: whom the plan skips, and who is paused after it."""
        running, paused = self._running, self._paused
        stay = min(len(running), places)
        back = min(len(paused), places - stay)
        while stay and back < len(paused) and paused[back] < running[stay - 1]:
            stay, back = stay - 1, back + 1
        if back or stay < len(running):
            resumed = [request_id for _, request_id in paused[:back]]
            self._paused = paused[back:]
            for rank in running[stay:]:
                insort(self._paused, rank)
            self._skipped = self._skipped.difference(resumed).union([request_id for _, request_id in running[stay:]])
        return self._skipped

    def _ranks(self, lane: LaneView, sequences: Iterable[SequenceView]) -> list[Rank]:
        stays, ranks = self._stays, []
        for sequence in sequences:
            request_id, generated = sequence.request_id, sequence.generated_tokens
            stay = stays.get(request_id)
            if stay is None or generated >= stay[2]:
                stay = stays[request_id] = self._next_stay(lane, sequence, stay)
            ranks.append((stay[0] + stay[1] * generated, request_id))
        ranks.sort()
        return ranks
