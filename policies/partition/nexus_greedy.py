"""Favour prefill while KV is free and decode when it is tight, and do not twitch.

Idea
    While the KV in use is below ``kv_switch`` the prefill share grows as long as decode is slowed by no more than
    ``decode_slack`` against its best share; above, the decode share grows as long as prefill is within its slack.
    From the present share the search goes in steps: forward while the other lane's limit holds, else back until it
    does. A result that differs from the present by less than ``hysteresis_pct`` is not taken. The shares add up to 100.
    Latencies over the share are the line of semi-PD's equation 4 for decode, fitted to the latest ``history`` windows
    (before the first: its figure 10), and inverse proportion for prefill.
Reads
    KV in use; the present shares; TPOT of the window.
Parameters
    prefill_pct: prefill share at the start, percent; decode has the rest.
    window_s: seconds between two decisions.
    kv_switch: share of KV in use from which decode is favoured.
    decode_slack: by how many times decode may be slower than at its best share while prefill is favoured.
    prefill_slack: the same of prefill while decode is favoured; larger, since prefill suffers more from a small share.
    step_pct: step of the search.
    hysteresis_pct: smallest change that is made.
    least_pct: no lane gets less.
    history: windows that the decode line is fitted to.
Source
    Nexus (arXiv 2507.06608 v3): dual objective by KV pressure, greedy search, hysteresis. Its latency model (saturating
    compute term, memory term with contention) needs each batch's shape, which a window does not show; ours is
    measured. The defaults are OURS. Its orders within the lanes are batch policies (sjf_predicted for prefill).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import Partition, PartitionView, PolicyKind, Range
from policies.partition.latency_fit import Line, fit_line

FIGURE_10 = Line(0.6284, 0.3818)
"""Decode time over 1 / share, relative to the whole device's (semi-PD, arXiv 2504.19867)."""
PREFILL = Line(1.0, 0.0)


@dataclass
class NexusGreedy:
    kind: ClassVar[PolicyKind] = "partition"
    name: ClassVar[str] = "nexus_greedy"
    prefill_pct: Annotated[int, Range(1, 99)] = 50
    window_s: Annotated[float, Range(0.1, 600, log=True)] = 2.0
    kv_switch: Annotated[float, Range(0, 1)] = 0.7
    decode_slack: Annotated[float, Range(1, 10)] = 2.0
    prefill_slack: Annotated[float, Range(1, 10)] = 3.0
    step_pct: Annotated[int, Range(1, 50)] = 5
    hysteresis_pct: Annotated[int, Range(0, 50)] = 10
    least_pct: Annotated[int, Range(1, 50)] = 10
    history: Annotated[int, Range(1, 1000)] = 32
    rng: random.Random = field(init=False, repr=False)
    _tpot: deque[tuple[float, float]] = field(init=False, repr=False)
    """(1 / normalised decode share, mean TPOT in s) of past windows."""

    def __post_init__(self) -> None:
        self._tpot = deque(maxlen=self.history)

    def initial(self) -> Partition:
        return Partition(self.prefill_pct, 100 - self.prefill_pct)

    def partition(self, view: PartitionView) -> Partition:
        prefill_pct, decode_pct = view.partition
        if view.tpot_s:
            self._tpot.append(((prefill_pct + decode_pct) / decode_pct, sum(view.tpot_s) / len(view.tpot_s)))
        if view.kv_use >= self.kv_switch:
            found = 100 - self._search(decode_pct, PREFILL, self.prefill_slack)
        else:
            found = self._search(prefill_pct, fit_line(self._tpot, FIGURE_10), self.decode_slack)
        if abs(found - prefill_pct) < max(self.hysteresis_pct, 1):
            return view.partition
        return Partition(found, 100 - found)

    def _search(self, own_pct: int, other: Line, slack: float) -> int:
        """The largest share of the favoured lane, in steps from ``own_pct``, within the limit of the other one."""
        most = 100 - self.least_pct
        allowed = _within(other, slack * other.at(100 / most))
        own_pct = min(max(own_pct, self.least_pct), most)
        while own_pct > self.least_pct and not allowed(own_pct):
            own_pct = max(own_pct - self.step_pct, self.least_pct)
        while own_pct + self.step_pct <= most and allowed(own_pct + self.step_pct):
            own_pct += self.step_pct
        return own_pct


def _within(other: Line, limit: float) -> Callable[[int], bool]:
    """Whether the other lane stays within its limit when the favoured one has this share."""
    return lambda own_pct: other.at(100 / (100 - own_pct)) <= limit * (1 + 1e-9)
