"""Shares that never change.

Idea
    A fixed split, as the published semi-PD repository runs it (its environment variables set it for a server's life).
Reads
    Nothing.
Parameters
    prefill_pct: compute share of the prefill lane, percent of one device.
    decode_pct: compute share of the decode lane; the sum may exceed 100 (the device then arbitrates).
Source
    semi-PD's repository (infinigence/Semi-PD), whose defaults are 80 and 100.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import Partition, PartitionView, PolicyKind, Range


@dataclass
class StaticShare:
    kind: ClassVar[PolicyKind] = "partition"
    name: ClassVar[str] = "static_share"
    window_s: ClassVar[float | None] = None
    prefill_pct: Annotated[int, Range(1, 100)] = 80
    decode_pct: Annotated[int, Range(1, 100)] = 100
    rng: random.Random = field(init=False, repr=False)

    def initial(self) -> Partition:
        return Partition(self.prefill_pct, self.decode_pct)

    def partition(self, view: PartitionView) -> Partition:
        return self.initial()
