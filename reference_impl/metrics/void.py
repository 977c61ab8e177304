"""Rows that tell of work in vain: of a request that its instance lost. See ``reference_impl/events.py``."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from reference_impl.metrics.log import Rows

_BY_INSTANCES = ("admit", "prefilled", "transfer", "join", "pause", "resume", "preempt", "finish")


def without_void(rows: Mapping[str, Rows]) -> Mapping[str, Rows]:
    """The rows that count. Where nothing was lost, all of them."""
    if not len(rows["lost"]):
        return rows
    attempts = _Attempts(rows)
    return {kind: _kept(part, attempts) if kind in _BY_INSTANCES else part for kind, part in rows.items()}


def _kept(part: Rows, attempts: _Attempts) -> Rows:
    keep = np.ones(len(part), np.bool_)
    times_s = part.floats("time_s")
    for i in np.flatnonzero(np.isin(part.ints("request"), list(attempts.losses))):
        request, instance, time_s = int(part.ints("request")[i]), int(part.ints("instance")[i]), float(times_s[i])
        given = attempts.given_by_next_loss(request, time_s)
        if given is not None and part.kind == "finish":
            keep[i] = False
        elif given is not None and part.kind == "prefilled":
            keep[i] = part.ints("tokens")[i] <= given
        keep[i] &= not attempts.lost_at(request, instance, time_s)
        keep[i] &= instance < 0 or not attempts.adrift(request, time_s)
    return part.select(keep)


class _Attempts:
    """When requests that were lost were sent to which instance, and when lost there."""

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        self.losses: dict[int, list[tuple[float, int]]] = defaultdict(list)
        """By request: (time, tokens given), ascending."""
        self._turns: dict[tuple[int, int], list[tuple[float, bool]]] = defaultdict(list)
        """By request and instance: (time, whether it was sent there), ascending: in one moment it is lost before."""
        for request, tokens, time_s in _table(rows["lost"], "request", "tokens"):
            self.losses[request].append((time_s, tokens))
        self._dispatched: dict[int, list[float]] = defaultdict(list)
        for request, _, time_s in _table(rows["dispatch"], "request", "instance"):
            if request in self.losses:
                self._dispatched[request].append(time_s)
        for kind in ("dispatch", "transfer", "lost"):
            concerned = rows[kind].select(np.isin(rows[kind].ints("request"), list(self.losses)))
            begun = "start_s" if kind == "transfer" else "time_s"
            for request, instance, time_s in _table(concerned, "request", "instance", begun):
                self._turns[request, instance].append((time_s, kind != "lost"))
        for turns in self._turns.values():
            turns.sort()

    def given_by_next_loss(self, request: int, time_s: float) -> int | None:
        """Tokens that the client had been given when the request was lost next; None: it was not lost any more."""
        losses = self.losses[request]
        after = bisect_left(losses, (time_s,))
        return losses[after][1] if after < len(losses) else None

    def lost_at(self, request: int, instance: int, time_s: float) -> bool:
        """Whether the request had been lost at that instance, and not been sent there again."""
        turns = self._turns[request, instance]
        before = bisect_right(turns, (time_s, True)) - 1
        return before >= 0 and not turns[before][1]

    def adrift(self, request: int, time_s: float) -> bool:
        """Whether the request had been lost, and not been dispatched again: then nobody is to serve it."""
        lost = bisect_left(self.losses[request], (time_s,))
        sent = bisect_right(self._dispatched[request], time_s)
        return lost > 0 and (sent == 0 or self._dispatched[request][sent - 1] < self.losses[request][lost - 1][0])


def _table(rows: Rows, first: str, second: str, when: str = "time_s") -> Iterator[tuple[int, int, float]]:
    return zip(rows.ints(first).tolist(), rows.ints(second).tolist(), rows.floats(when).tolist(), strict=True)
