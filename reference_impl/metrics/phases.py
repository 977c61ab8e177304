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

:meth:`Phases.breakdown_ns` splits three of them: ``prefill`` and ``recompute`` into the time in which the lane computed
prompts, and the rest (``.._stall``: it computed none, or nothing); ``decode`` into iterations that gave it a token,
those of them that computed prompts beside (``decode_beside_prompts``), and the rest (``decode_stall``: paused, not
taken in yet, or the lane computed prompts alone). A chunk of somebody else's prompt counts as computing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reference_impl.metrics.log import LANES, EventLogError, Floats, Ints, RunLog
from reference_impl.metrics.tokens import rebuild

PHASES = (
    *("dispatch_wait", "queue", "prefill", "prefill_stall", "handover_wait", "transfer"),
    *("decode", "decode_beside_prompts", "decode_stall"),
    *("preempted", "lost", "recompute", "recompute_stall", "until_first_token", "streaming"),
)
"""Every part of a breakdown, in the order in which it is told."""
_KINDS = ("arrive", "dispatch", "admit", "prefilled", "token", "transfer", "preempt", "lost", "finish", "reject")
_ENDS = ("finish", "reject")
_DROPPED = ("preempted", "lost")
_ROUNDING_NS = 10
"""A shorter rest of a phase is no stall."""


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


class Spans(NamedTuple):
    """Stretches of time that do not overlap, ascending."""

    start_s: Floats
    end_s: Floats

    def within(self, start_s: float, end_s: float) -> Spans:
        """The parts of them inside ``[start_s, end_s]``."""
        low, high = np.searchsorted(self.end_s, start_s, "right"), np.searchsorted(self.start_s, end_s, "left")
        return Spans(np.maximum(self.start_s[low:high], start_s), np.minimum(self.end_s[low:high], end_s))

    @property
    def total_s(self) -> float:
        """How long they are together."""
        return float((self.end_s - self.start_s).sum())


class Phases:
    """The phases of every request of a run; each is built when it is asked for."""

    def __init__(self, run: RunLog) -> None:
        self._run = run
        self._tokens = rebuild(run)
        self._prompts = {lane: _prompt_spans(run, lane) for lane in ("mixed", "prefill")}
        self._senders = {int(instance["id"]) for instance in run.instances if instance["role"] == "prefill"}
        self._events()

    def _events(self) -> None:
        parts = [self._run.rows[kind] for kind in _KINDS]
        request = np.concatenate([part.ints("request") for part in parts])
        order = np.lexsort((np.concatenate([part.ints("row") for part in parts]), request))
        self._request = request[order]
        self._kind = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
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
        for step in steps:
            if step.kind in _ENDS:
                break
            if seen_from_outside:
                if step.kind in ("arrive", "token"):
                    found.go(step.time_s, "until_first_token" if step.kind == "arrive" else "streaming", None)
            else:
                self._take(found, step)
        return found.done()

    def _take(self, found: _Telling, step: Step) -> None:
        """What the request does from this event on."""
        match step.kind:
            case "arrive":
                found.go(step.time_s, "dispatch_wait", None)
            case "dispatch":
                found.go(step.time_s, found.name if found.name in _DROPPED else "queue", step.instance)
            case "admit":
                found.go(step.time_s, "recompute" if found.dropped else "prefill", step.instance)
            case "prefilled":
                sends = step.instance in self._senders
                found.go(step.time_s, "handover_wait" if sends else "decode", step.instance)
            case "transfer":
                assert step.start_s is not None
                found.go(step.start_s, "transfer", found.instance)
                found.go(step.time_s, "decode", step.instance)
            case "preempt" | "lost":
                found.go(step.time_s, "preempted" if step.kind == "preempt" else "lost", step.instance)

    def breakdown_ns(self, request: int) -> dict[str, int]:
        """Whole nanoseconds by part (:data:`PHASES`, those that are not 0); they add up to the request's whole time,
        between the nanoseconds that its arrival and its end round to."""
        parts = dict.fromkeys(PHASES, 0)
        for phase in self.of(request):
            total = _ns(phase.end_s) - _ns(phase.start_s)
            for name, seconds in self._split(request, phase):
                part = min(round(seconds * 1e9), total)
                parts[name] += part
                total -= part
            stall = f"{phase.name}_stall"
            parts[stall if stall in parts and total > _ROUNDING_NS else phase.name] += total
        return {name: ns for name, ns in parts.items() if ns}

    def _split(self, request: int, phase: Phase) -> list[tuple[str, float]]:
        if phase.name in ("prefill", "recompute"):
            return [(phase.name, sum(self._computing_s(phase, lane) for lane in self._prompts))]
        if phase.name == "decode":
            own = self._decoding(request, phase)
            beside = self._prompts["mixed"].get(phase.instance, _NONE)
            beside_s = sum(beside.within(*span).total_s for span in zip(own.start_s, own.end_s, strict=True))
            return [("decode_beside_prompts", beside_s), ("decode", own.total_s - beside_s)]
        return []

    def _computing_s(self, phase: Phase, lane: str) -> float:
        return self._prompts[lane].get(phase.instance, _NONE).within(phase.start_s, phase.end_s).total_s

    def _decoding(self, request: int, phase: Phase) -> Spans:
        """The iterations within the phase that gave the request a token, joined where they touch."""
        log = self._tokens
        low, high = np.searchsorted(log.request, [request, request + 1])
        spans = [
            Spans(log.iterations.start_s[log.low[i] : log.high[i]], log.iterations.end_s[log.low[i] : log.high[i]])
            for i in range(low, high)
            if log.is_slice[i]
        ]
        starts, ends = (np.concatenate([np.empty(0), *(span[i] for span in spans)]) for i in (0, 1))
        gap = np.flatnonzero(starts[1:] > ends[:-1] + 1e-9)
        joined = Spans(starts[np.append(0, gap + 1)], ends[np.append(gap, -1)]) if len(starts) else _NONE
        return joined.within(phase.start_s, phase.end_s)


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


_NONE = Spans(np.empty(0), np.empty(0))


def _prompt_spans(run: RunLog, lane: str) -> dict[int | None, Spans]:
    """By instance, when this lane computed prompt tokens."""
    runs = run.rows["run"]
    chosen = np.flatnonzero((runs.ints("lane") == LANES.index(lane)) & (runs.ints("tokens") > 0))
    chosen = chosen[np.argsort(runs.floats("start_s")[chosen], kind="stable")]
    instance = runs.ints("instance")[chosen]
    return {
        int(number): Spans(runs.floats("start_s")[here], runs.floats("time_s")[here])
        for number in np.unique(instance)
        for here in [chosen[instance == number]]
    }


def _ns(time_s: float) -> int:
    return round(time_s * 1e9)
