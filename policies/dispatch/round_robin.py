"""Instances take turns.

Idea
    The baseline that needs no state of the cluster: request i goes to instance i modulo their number.
    Prefill and decode instances (disaggregation) have a turn each.
Reads
    Instance ids and the phase.
Parameters
    None.
Source
    Folklore; the default of most HTTP load balancers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import ClassVar

from policies.api import ClusterView, Dispatch, Phase, PolicyKind, RequestView


@dataclass
class RoundRobin:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "round_robin"
    rng: random.Random = field(init=False, repr=False)
    _turn: dict[Phase, int] = field(init=False, repr=False, default_factory=dict)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        instances = cluster.instances
        turn = self._turn.get(cluster.phase, 0)
        self._turn[cluster.phase] = turn + 1
        return Dispatch(instances[turn % len(instances)].instance_id)
