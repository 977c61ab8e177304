"""Both lanes may use the whole device.

Idea
    No control: the device arbitrates between prefill and decode. The paper's only ablation of its algorithm.
Reads
    Nothing.
Parameters
    None.
Source
    semi-PD (arXiv 2504.19867), figure 15, "(100, 100)".
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import ClassVar

from policies.api import Partition, PartitionView, PolicyKind

WHOLE = Partition(100, 100)


@dataclass
class NoPartition:
    kind: ClassVar[PolicyKind] = "partition"
    name: ClassVar[str] = "none"
    window_s: ClassVar[float | None] = None
    rng: random.Random = field(init=False, repr=False)

    def initial(self) -> Partition:
        return WHOLE

    def partition(self, view: PartitionView) -> Partition:
        return WHOLE
