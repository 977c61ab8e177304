"""Where a request's time went, added up: its phases, three of them split by what the lanes did meanwhile.

``prefill`` and ``recompute``: the lane computed prompts, its own or another's; ``prefill_stall``, ``recompute_stall``:
it computed none. ``decode``: iterations that gave the request a token; ``decode_beside_prompts``: those of them that
computed prompts too; ``decode_stall``: the request was paused or not taken in yet, or the lane computed prompts alone.
The other parts are phases as they are (``phases.py``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reference_impl.metrics.log import LANES, Floats, RunLog
from reference_impl.metrics.phases import Phase, Phases
from reference_impl.metrics.tokens import rebuild

PARTS = (
    *("dispatch_wait", "queue", "prefill", "prefill_stall", "handover_wait", "transfer"),
    *("decode", "decode_beside_prompts", "decode_stall"),
    *("preempted", "lost", "recompute", "recompute_stall", "until_first_token", "streaming"),
)
"""Every part of a breakdown, in the order in which it is told."""
_ROUNDING_NS = 10
"""A shorter rest of a phase is no stall."""


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


class Breakdown:
    """The breakdown of every request of a run; each is added up when it is asked for."""

    def __init__(self, run: RunLog, phases: Phases) -> None:
        self._phases = phases
        self._tokens = rebuild(run)
        self._prompts = {lane: _prompt_spans(run, lane) for lane in ("mixed", "prefill")}

    def ns(self, request: int) -> dict[str, int]:
        """Whole nanoseconds by part (:data:`PARTS`, those that are not 0); they add up to the request's whole time,
        between the nanoseconds that its arrival and its end round to."""
        parts = dict.fromkeys(PARTS, 0)
        for phase in self._phases.of(request):
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
