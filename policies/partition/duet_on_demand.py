"""One device for both phases until decoding suffers; then the smallest decode share that meets the target.

Idea
    Both lanes may use the whole device (aggregated) as long as the TPOT of a window meets its target. If it does not,
    the device is split: decode gets the smallest share whose predicted TPOT meets the target, prefill all the rest,
    which is the highest throughput under that limit, since prefill gains from every share. It is aggregated again
    once the TPOT predicted for that meets the target.
    Predictions are lines fitted to the latest ``history`` windows: a split's TPOT over 1 / decode share, the aggregated
    one over the prefill load (arrival rate times prefill time on the whole device).
Reads
    TPOT of the window and its target; the present shares; arrivals, prefill time and prefilled requests. Without a
    target it stays aggregated.
Parameters
    window_s: seconds between two decisions.
    percentile: percentile of the TPOT that must meet the target.
    least_pct: least share of either lane in a split.
    history: windows that the lines are fitted to.
Source
    DuetServe (arXiv 2511.04791), which predicts each mixed batch from a roofline and splits for that batch; here the
    decision is one per window and the model is measured, since a partition policy sees windows. The decode law is
    semi-PD's equation 4. All defaults are OURS. Its look-ahead decode without CPU synchronisation is the engine's.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import Partition, PartitionView, PolicyKind, Range
from policies.partition.latency_fit import Line, fit_line, linear_percentile

AGGREGATED = Partition(100, 100)
_ROUNDING = 1 + 1e-6


@dataclass
class DuetOnDemand:
    kind: ClassVar[PolicyKind] = "partition"
    name: ClassVar[str] = "duet_on_demand"
    window_s: Annotated[float, Range(0.1, 600, log=True)] = 5.0
    percentile: Annotated[float, Range(1, 100)] = 90.0
    least_pct: Annotated[int, Range(1, 50)] = 20
    history: Annotated[int, Range(1, 1000)] = 32
    rng: random.Random = field(init=False, repr=False)
    _by_share: deque[tuple[float, float]] = field(init=False, repr=False)
    """(1 / normalised decode share, TPOT in s) of past windows."""
    _by_load: deque[tuple[float, float]] = field(init=False, repr=False)
    """(prefill load, TPOT in s) of past aggregated windows with load."""
    _prefill_s: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        self._by_share = deque(maxlen=self.history)
        self._by_load = deque(maxlen=self.history)

    def initial(self) -> Partition:
        return AGGREGATED

    def partition(self, view: PartitionView) -> Partition:
        tpot_s = linear_percentile(view.tpot_s, self.percentile)
        load = self._learn(view, tpot_s)
        if view.tpot_target_s is None:
            return AGGREGATED
        limit_s = view.tpot_target_s * _ROUNDING
        if view.partition == AGGREGATED:
            return AGGREGATED if tpot_s is None or tpot_s <= limit_s else self._split(limit_s)
        back = load == 0 or fit_line(self._by_load, Line(0.0, 0.0)).at(load) <= limit_s
        return AGGREGATED if back else self._split(limit_s)

    def _learn(self, view: PartitionView, tpot_s: float | None) -> float:
        """Add the window to the history; returns the prefill load as a share of the whole device."""
        prefill_pct, decode_pct = view.partition
        if view.prefilled_requests:
            share = prefill_pct / (prefill_pct + decode_pct)
            self._prefill_s = view.prefill_busy_s / view.prefilled_requests * share
        load = view.arrivals / view.window_s * self._prefill_s
        if tpot_s is not None:
            self._by_share.append(((prefill_pct + decode_pct) / decode_pct, tpot_s))
            if view.partition == AGGREGATED and load > 0:
                self._by_load.append((load, tpot_s))
        return load

    def _split(self, limit_s: float) -> Partition:
        law = fit_line(self._by_share, Line(0.0, 0.0))
        most = 100 - self.least_pct
        fits = (pct for pct in range(self.least_pct, most) if law.at(100 / pct) <= limit_s)
        decode_pct = next(fits, most)
        return Partition(100 - decode_pct, decode_pct)
