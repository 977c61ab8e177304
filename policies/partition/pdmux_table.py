"""SGLang's table of splits, looked up by the number of decodes.

Idea
    G groups of compute units are made once: group 0 is all prefill, the last all decode, those between go from most
    prefill to an even split. While both phases have work the group is clamp(decodes (G - 2) / divisor, 1, G - 2),
    rounded down; with one phase alone it is that phase's. SGLang looks at each iteration; here it is each window, so
    a lane that is idle keeps the share of the nearest mixed group for when it wakes: (100, least decode share) for
    group 0, (least prefill share, 100) for the last one, and the device arbitrates meanwhile.
    Splitting a prefill by layers, so that decodes slip in, is the engine's business and not modelled.
Reads
    Running requests (as the decode batch), waiting requests and prefill time of the window.
Parameters
    groups: groups in all (sm_group_num); fewer are made where the device has not that many splits.
    decode_bs_divisor: decodes at which the last mixed group is reached.
    compute_units: SMs of the device (132: H100 and H200; 108: A100).
    granularity: a split is a multiple of this many SMs (Hopper 8, Ampere 2).
    least_units: least SMs of the decode side (SGLang: 16); the prefill side has at least half of the device.
    window_s: seconds between two decisions.
Source
    SGLang, python/sglang/srt/multiplex (pdmux_context.py: divide_sm; multiplexing_mixin.py: adjust_stream_groups) and
    its defaults 8, 36; MuxWise (arXiv 2504.14489). The window is OURS.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import Partition, PartitionView, PolicyKind, Range


@dataclass
class PdmuxTable:
    kind: ClassVar[PolicyKind] = "partition"
    name: ClassVar[str] = "pdmux_table"
    groups: Annotated[int, Range(3, 64)] = 8
    decode_bs_divisor: Annotated[int, Range(1, 4096, log=True)] = 36
    compute_units: Annotated[int, Range(32, 1024)] = 132
    granularity: Annotated[int, Range(1, 64)] = 8
    least_units: Annotated[int, Range(1, 256)] = 16
    window_s: Annotated[float, Range(0.01, 600, log=True)] = 0.5
    rng: random.Random = field(init=False, repr=False)
    _splits: list[tuple[int, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._splits = splits(self.compute_units, self.granularity, self.least_units, self.groups - 2)
        if not self._splits:
            raise ValueError(
                f"compute_units={self.compute_units} has no split into multiples of granularity={self.granularity} with"
                f" {self.least_units} or more for decode and half for prefill; lower granularity or least_units"
            )

    def initial(self) -> Partition:
        return self._shares(0)

    def partition(self, view: PartitionView) -> Partition:
        prefills = view.waiting_requests > 0 or view.prefill_busy_s > 0
        return self._shares(group_index(view.running_requests, prefills, len(self._splits) + 2, self.decode_bs_divisor))

    def _shares(self, index: int) -> Partition:
        mixed = [Partition(self._pct(prefill), self._pct(decode)) for prefill, decode in self._splits]
        if index == 0:
            return Partition(100, mixed[0].decode_pct)
        if index > len(mixed):
            return Partition(mixed[-1].prefill_pct, 100)
        return mixed[index - 1]

    def _pct(self, units: int) -> int:
        return max(1, round(100 * units / self.compute_units))


def group_index(decodes: int, prefills: bool, groups: int, divisor: int) -> int:
    """Which of ``groups`` groups SGLang runs."""
    if not decodes:
        return 0
    if not prefills:
        return groups - 1
    return max(1, min(groups - 2, decodes * (groups - 2) // divisor))


def splits(units: int, granularity: int, least: int, count: int) -> list[tuple[int, int]]:
    """At most ``count`` (prefill, decode) splits, most prefill first; prefill has half or more, decode ``least``."""
    prefill = [x for x in range(granularity, units, granularity) if x >= units - x >= least]
    if len(prefill) >= count:
        prefill = prefill[:: len(prefill) // count][:count]
    return [(x, units - x) for x in reversed(prefill)]
