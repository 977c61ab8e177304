"""Any instance, with equal probability.

Idea
    The weakest baseline: what a policy gains over it is what knowledge of the load is worth.
Reads
    Instance ids.
Parameters
    None.
Source
    Folklore; for its queue lengths see Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import ClassVar

from policies.api import ClusterView, Dispatch, PolicyKind, RequestView


@dataclass
class RandomChoice:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "random"
    rng: random.Random = field(init=False, repr=False)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        return Dispatch(self.rng.choice(cluster.instances).instance_id)
