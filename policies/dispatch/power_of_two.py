"""The less loaded of two instances drawn at random.

Idea
    Looking at d random instances instead of all of them keeps most of the gain of the shortest queue, costs no scan
    of the cluster, and does not herd on stale reports.
Reads
    Of d instances what least_loaded reads of all.
Parameters
    metric: what counts as load; as in least_loaded.
    d: how many different instances are drawn; all of them where there are no more.
Source
    Mitzenmacher, "The power of two choices in randomized load balancing", 2001; default router of Ray Serve.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import ClusterView, Dispatch, InstanceView, PolicyKind, Range, RequestView
from policies.dispatch.load import LEAST_LOADED, Metric


@dataclass
class PowerOfTwo:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "power_of_two"
    metric: Metric = "requests"
    d: Annotated[int, Range(1, 64)] = 2
    rng: random.Random = field(init=False, repr=False)
    _least_loaded: Callable[[Sequence[InstanceView]], InstanceView] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._least_loaded = LEAST_LOADED[self.metric]

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        instances = cluster.instances
        if self.d < len(instances):
            instances = self._draw(instances)
        return Dispatch(self._least_loaded(instances).instance_id)

    def _draw(self, instances: Sequence[InstanceView]) -> list[InstanceView]:
        """``d`` different instances, in the order drawn (so that ties do not favour low ids)."""
        count = len(instances)
        uniform = self.rng.random
        drawn: dict[int, InstanceView] = {}
        while len(drawn) < self.d:
            index = int(uniform() * count)
            drawn[index] = instances[index]
        return list(drawn.values())
