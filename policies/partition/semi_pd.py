"""semi-PD's Algorithm 1: move compute to the lane that misses its target.

Idea
    Once per window the percentiles of TTFT and TPOT are compared with their targets. If exactly one misses, its lane's
    share grows in steps until the fitted latency model promises the target, at most ``max_step`` steps; a share that
    has reached 100 % grows by cutting the other. If both miss there is no room to adjust and nothing changes; if both
    hold nothing changes either (the paper has no shrink-back, dead band or hysteresis). The model is equation 4:
    TTFT = a1 / (x' - l) + b1 and TPOT = a2 / y' + b2 with normalised shares x' = x / (x + y), y' = y / (x + y) and
    l = arrival rate * prefill time on the whole device. One window gives one point, which cannot fix a1, b1 and l, so
    l is estimated from arrivals and measured prefill times, and a, b are fitted to the latest ``history`` windows
    (latency_fit.py); before the first usable point a1 is that of an M/M/1 queue (equation 3). x' <= l means a queue
    that grows without end: an infinite estimate. The present share is judged by what was measured, not by the fit.
Reads
    TTFT and TPOT of the window and their targets; the present shares; arrivals, prefill time and prefilled requests.
    A lane without a target or without samples counts as meeting it.
Parameters
    prefill_pct: prefill share at the start, percent.
    decode_pct: decode share at the start, percent.
    window_s: seconds between two decisions (the paper counts iterations).
    percentile: percentile of TTFT and TPOT that must meet the targets.
    step_pct: by how much one step changes a share.
    max_step: most steps in one decision.
    least_pct: no share is cut below this. The paper only asks for more than 0, which is 1 here; but where more compute
        cannot help (a queue for memory, say) it then starves the other lane until both targets are missed, and stays
        there, because then nothing changes.
    history: windows that the model is fitted to.
    printed_variant: if both targets are missed, follow the pseudo-code as printed (grow the prefill share) and not the
        text (change nothing).
Source
    semi-PD (arXiv 2504.19867), section 5, Algorithm 1, equations 1 to 4. The paper prints no value for the start,
    window, step or number of steps: those defaults are OURS (the start: the published repository's static shares), and
    so is the bound least_pct (figure 10 measures decode from 20 % on). It evaluates the 90th percentile. The printed
    pseudo-code never increments its step counter; here it is incremented.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import Partition, PartitionView, PolicyKind, Range
from policies.partition.latency_fit import Line, fit_line, linear_percentile

_LEAST_FREE = 0.01
"""Share of the device by which prefill must exceed its load for its queue to count as stable. The paper asks for more
than 0, where the fit would hang on the last bit of a division."""


@dataclass
class SemiPd:
    kind: ClassVar[PolicyKind] = "partition"
    name: ClassVar[str] = "semi_pd"
    prefill_pct: Annotated[int, Range(1, 100)] = 80
    decode_pct: Annotated[int, Range(1, 100)] = 100
    window_s: Annotated[float, Range(0.1, 600, log=True)] = 10.0
    percentile: Annotated[float, Range(1, 100)] = 90.0
    step_pct: Annotated[int, Range(1, 50)] = 5
    max_step: Annotated[int, Range(1, 100)] = 4
    least_pct: Annotated[int, Range(1, 50)] = 20
    history: Annotated[int, Range(1, 1000)] = 32
    printed_variant: bool = False
    rng: random.Random = field(init=False, repr=False)
    _ttft: deque[tuple[float, float]] = field(init=False, repr=False)
    """(1 / (x' - l), TTFT in s) of past windows."""
    _tpot: deque[tuple[float, float]] = field(init=False, repr=False)
    """(1 / y', TPOT in s) of past windows."""
    _full_share_prefill_s: float | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self._ttft = deque(maxlen=self.history)
        self._tpot = deque(maxlen=self.history)

    def initial(self) -> Partition:
        return Partition(self.prefill_pct, self.decode_pct)

    def partition(self, view: PartitionView) -> Partition:
        ttft_s = linear_percentile(view.ttft_s, self.percentile)
        tpot_s = linear_percentile(view.tpot_s, self.percentile)
        load = self._learn(view, ttft_s, tpot_s)
        ttft_bad = _above(ttft_s, view.ttft_target_s)
        tpot_bad = _above(tpot_s, view.tpot_target_s)
        if ttft_bad and tpot_bad and not self.printed_variant:
            return view.partition
        if ttft_bad:
            return self._grow_prefill(view, load)
        return self._grow_decode(view) if tpot_bad else view.partition

    def _learn(self, view: PartitionView, ttft_s: float | None, tpot_s: float | None) -> float:
        """Add the window's points to the history; returns l, the load as a share of the whole device."""
        prefill, decode = _normalised(view.partition)
        if view.prefilled_requests:
            self._full_share_prefill_s = view.prefill_busy_s / view.prefilled_requests * prefill
        load = view.arrivals / view.window_s * (self._full_share_prefill_s or 0.0)
        if ttft_s is not None and prefill - load > _LEAST_FREE:
            self._ttft.append((1 / (prefill - load), ttft_s))
        if tpot_s is not None:
            self._tpot.append((1 / decode, tpot_s))
        return load

    def _grow_prefill(self, view: PartitionView, load: float) -> Partition:
        queue = Line((self._full_share_prefill_s or 0.0) * self._tail_factor(), 0.0)
        model = fit_line(self._ttft, prior=queue)
        shares, estimate_s, steps = view.partition, math.inf, 0
        while steps < self.max_step and _above(estimate_s, view.ttft_target_s):
            shares = Partition(*self._grow(shares.prefill_pct, shares.decode_pct))
            free = _normalised(shares)[0] - load
            estimate_s = model.at(1 / free) if free > _LEAST_FREE else math.inf
            steps += 1
        return shares

    def _grow_decode(self, view: PartitionView) -> Partition:
        model = fit_line(self._tpot, prior=Line(0.0, 0.0))
        shares, estimate_s, steps = view.partition, math.inf, 0
        while steps < self.max_step and _above(estimate_s, view.tpot_target_s):
            decode_pct, prefill_pct = self._grow(shares.decode_pct, shares.prefill_pct)
            shares = Partition(prefill_pct, decode_pct)
            estimate_s = model.at(1 / _normalised(shares)[1])
            steps += 1
        return shares

    def _grow(self, own_pct: int, other_pct: int) -> tuple[int, int]:
        """One step more for the one lane: raise its share; once that would pass 100, cut the other's."""
        if own_pct + self.step_pct <= 100:
            return own_pct + self.step_pct, other_pct
        cut = other_pct - self.step_pct
        return own_pct, cut if cut >= self.least_pct else other_pct

    def _tail_factor(self) -> float:
        """Percentile of an exponential time (the sojourn of M/M/1) in means."""
        return -math.log(1 - min(self.percentile, 99.9) / 100)


def _normalised(shares: Partition) -> tuple[float, float]:
    total = shares.prefill_pct + shares.decode_pct
    return shares.prefill_pct / total, shares.decode_pct / total


def _above(latency_s: float | None, target_s: float | None) -> bool:
    """Whether a target is missed; a rounding error above it is not, so that ties do not hang on the last bit."""
    return latency_s is not None and target_s is not None and latency_s > target_s * (1 + 1e-6)
