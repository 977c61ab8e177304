"""Where a request's time went: its phases in order, without a gap, from its arrival to its end.

=================== ================================================================================================
phase               the request
=================== ================================================================================================
``dispatch_wait``   is at the front door: the dispatch policy has not sent it anywhere
``queue``           was sent to an instance (the way there included) and is not admitted
``prefill``         is admitted, its prompt is being computed
``handover_wait``   has its prompt's KV; the instance that decodes has no room yet, or the link is busy
``transfer``        moves
``decode``          has its first token and is where it decodes
``preempted``       was dropped and waits to be admitted again
``lost``            was dropped because its instance failed, and waits to be admitted again
``recompute``       is admitted again; its prompt and what it had generated are being computed
``until_first_token``, ``streaming``  the same from outside: a client's log knows no more
=================== ================================================================================================
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reference_impl.metrics.fleet import Roles
from reference_impl.metrics.log import EventLogError, Ints, RunLog

_KINDS = ("arrive", "dispatch", "admit", "prefilled", "token", "transfer", "preempt", "lost", "finish", "reject")
_ENDS = ("finish", "reject")
_DROPPED = ("preempted", "lost")


class Phase(NamedTuple):
    """One stretch of a request's life."""

    name: str
    start_s: float
    end_s: float
    instance: int | None
    """Where it was; of a hand-over: the instance that sends."""


class Step(NamedTuple):
    """One event of a request."""

    time_s: float
    kind: str
    instance: int | None
    tokens: int | None
    start_s: float | None
    """Of a transfer."""


class Phases:
    """The phases of every request of a run; each is built when it is asked for."""

    def __init__(self, run: RunLog) -> None:
        self._run = run
        self._roles = Roles(run)
        self._events()

    def _events(self) -> None:
        parts = [self._run.rows[kind] for kind in _KINDS]
        request = np.concatenate([part.ints("request") for part in parts])
        kind = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        order = np.lexsort((np.concatenate([part.ints("row") for part in parts]), kind > 0, request))  # arrivals first
        self._request, self._kind = request[order], kind[order]
        place = np.concatenate([np.arange(len(part)) for part in parts])[order]
        self._place: Ints = place

    def steps(self, request: int) -> list[Step]:
        """The request's events in order. Raises EventLogError where it never arrived."""
        low, high = np.searchsorted(self._request, [request, request + 1])
        if low == high:
            raise EventLogError(f"request {request} is not in the event log; it holds {self._known()}")
        return [self._step(i) for i in range(low, high)]

    def _known(self) -> str:
        ids = self._run.rows["arrive"].ints("request")
        return f"requests {ids.min()} to {ids.max()}" if len(ids) else "no request"

    def _step(self, index: int) -> Step:
        rows = self._run.rows[_KINDS[self._kind[index]]]
        at = self._place[index]
        cells = {name: rows.columns[name][at].item() for name in ("instance", "tokens") if name in rows.columns}
        start_s = float(rows.floats("start_s")[at]) if rows.kind == "transfer" else None
        instance = cells.get("instance")
        where = None if instance is None or instance < 0 else instance
        return Step(float(rows.floats("time_s")[at]), rows.kind, where, cells.get("tokens"), start_s)

    def of(self, request: int) -> list[Phase]:
        """The request's phases: each begins where the one before it ended; the first at the arrival, the last ends with
        the last token or the refusal, of an unfinished one with its last event. Empty ones are left out."""
        steps = self.steps(request)
        end = next((step.time_s for step in steps if step.kind in _ENDS), max(step.time_s for step in steps))
        seen_from_outside = not any(step.kind in ("dispatch", "admit", "reject") for step in steps)
        found = _Telling(steps[0].time_s, end)
        for place, step in enumerate(steps):
            if step.kind in _ENDS:
                break
            if seen_from_outside:
                if step.kind in ("arrive", "token"):
                    found.go(step.time_s, "until_first_token" if step.kind == "arrive" else "streaming", None)
            else:
                self._take(found, step, steps[place + 1 :])
        return found.done()

    def _take(self, found: _Telling, step: Step, later: list[Step]) -> None:
        """What the request does from this event on; ``later``: those that follow."""
        match step.kind:
            case "arrive":
                found.go(step.time_s, "dispatch_wait", None)
            case "dispatch":
                found.go(step.time_s, found.name if found.name in _DROPPED else "queue", step.instance)
            case "admit":
                found.go(step.time_s, "recompute" if found.dropped else "prefill", step.instance)
            case "prefilled":
                follows = next((after.kind for after in later if after.kind != "token"), None)
                sends = follows == "transfer" or self._roles.at(step.instance, step.time_s) == "prefill"
                found.go(step.time_s, "handover_wait" if sends else "decode", step.instance)
            case "transfer":
                assert step.start_s is not None
                if step.instance != found.instance:
                    found.go(step.start_s, "transfer", found.instance)
                found.go(step.time_s, "decode", step.instance)
            case "preempt" | "lost":
                found.go(step.time_s, "preempted" if step.kind == "preempt" else "lost", step.instance)


class _Telling:
    """The phases so far. Time never goes back: processes that log by clocks of their own may disagree a little."""

    def __init__(self, start_s: float, end_s: float) -> None:
        self._phases: list[Phase] = []
        self._at_s = start_s
        self._end_s = end_s
        self.name = ""
        self.instance: int | None = None
        self.dropped = False
        """Whether it was dropped once."""

    def go(self, time_s: float, name: str, instance: int | None) -> None:
        """From ``time_s`` on it is in this phase."""
        at_s = min(max(time_s, self._at_s), self._end_s)
        if at_s > self._at_s:
            self._phases.append(Phase(self.name, self._at_s, at_s, self.instance))
        self._at_s, self.name, self.instance = at_s, name, instance
        self.dropped |= name in _DROPPED

    def done(self) -> list[Phase]:
        """All of them."""
        self.go(self._end_s, "", None)
        return self._phases
