"""Who waits on a lane, followed at the cost of what changes, and kept in an order of the policy's own.

A lane's queue changes at its ends (arrivals at the back, preempted ones at the front) and by what the policy itself
admits; anything else (a cancelled request, a policy that was pickled, another lane object) means reading all of it.
Both ends are read up to the first request that is known, so a long queue costs nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterator
from math import inf

from policies.api import LaneView, Queue, SequenceView

Key = Callable[[LaneView, SequenceView], float]
"""Rank of a waiting request, lowest first. May depend on its request, target and generated tokens and on what of the
lane never changes (its estimate), on nothing else."""


class Follower:
    """Mirrors ``lane.waiting``. References to sequences are not pickled: they are found again in the lane."""

    def __init__(self) -> None:
        self._lane: LaneView | None = None
        self._known: dict[int, SequenceView] = {}
        self._offered: list[int] = []
        """Shown to whoever plans since the last look: these alone may have been admitted."""

    def arrived(self, sequence: SequenceView) -> None:
        """A request waits that did not wait before."""
        raise NotImplementedError

    def left(self, request_id: int) -> None:
        """A request does not wait any more."""
        raise NotImplementedError

    def still_waits(self, sequence: SequenceView) -> None:
        """A request that was shown was not admitted, or is back already."""

    def waits_already(self) -> Collection[int]:
        """Ids of the requests that had arrived before, also before a pickle."""
        return self._known

    def follow(self, lane: LaneView) -> None:
        """Catch up with the lane's queue."""
        if lane is not self._lane:
            self._read_all(lane)
            return
        for request_id in self._offered:
            sequence = self._known[request_id]
            if sequence.computed_tokens:
                del self._known[request_id]
                self.left(request_id)
            else:
                self.still_waits(sequence)
        newcomers = self._newcomers(lane.waiting)
        self._offered.clear()
        if newcomers is None:
            self._read_all(lane)
            return
        for sequence in newcomers:
            self._known[sequence.request_id] = sequence
            self.arrived(sequence)

    def _newcomers(self, waiting: Queue[SequenceView]) -> list[SequenceView] | None:
        """Who joined at the front or at the back; None where something else has happened."""
        known, offered = self._known, self._offered
        front: list[SequenceView] = []
        for sequence in waiting:
            if known.get(sequence.request_id) is not sequence:
                front.append(sequence)
            elif sequence.request_id not in offered:
                break
        else:
            return front if len(front) + len(known) == len(waiting) else None
        back: list[SequenceView] = []
        for sequence in reversed(waiting):
            if known.get(sequence.request_id) is sequence:
                break
            back.append(sequence)
        if len(front) + len(known) + len(back) != len(waiting) or any(s.request_id in known for s in back):
            return None
        return front + back[::-1]

    def _read_all(self, lane: LaneView) -> None:
        self._lane = lane
        self._offered.clear()
        before = set(self.waits_already())
        self._known = {sequence.request_id: sequence for sequence in lane.waiting}
        for request_id in sorted(before - self._known.keys()):
            self.left(request_id)
        for request_id, sequence in self._known.items():
            if request_id in before:
                self.still_waits(sequence)
            else:
                self.arrived(sequence)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_lane": None, "_known": {}, "_offered": []}


class WaitingLine(Follower):
    """The waiting requests by a key."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self._key = key
        self._keys: dict[int, float] = {}
        self._entries: list[tuple[float, int]] = []
        """(key, request id), ascending: ties go to the lower id, which came first."""

    def walk(self, start: float = -inf) -> Iterator[SequenceView]:
        """Those whose key is -inf, those with a key of at least ``start``, then the others; each part by key."""
        entries = self._entries
        first = bisect_right(entries, (-inf, inf))
        middle = max(first, bisect_left(entries, (start, -1)))
        for part in ((0, first), (middle, len(entries)), (first, middle)):
            for place in range(*part):
                request_id = entries[place][1]
                self._offered.append(request_id)
                yield self._known[request_id]

    def key_of(self, request_id: int) -> float:
        """Of one that waits."""
        return self._keys[request_id]

    def waits_already(self) -> Collection[int]:
        return self._keys

    def arrived(self, sequence: SequenceView) -> None:
        key = self._keys[sequence.request_id] = self._rank(sequence)
        insort(self._entries, (key, sequence.request_id))

    def left(self, request_id: int) -> None:
        del self._entries[bisect_left(self._entries, (self._keys.pop(request_id), request_id))]

    def still_waits(self, sequence: SequenceView) -> None:
        if self._rank(sequence) != self._keys[sequence.request_id]:
            self.left(sequence.request_id)
            self.arrived(sequence)

    def _rank(self, sequence: SequenceView) -> float:
        assert self._lane is not None, "nobody waits before a lane is followed"
        return self._key(self._lane, sequence)
