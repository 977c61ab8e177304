"""DeepServe's Algorithm 1: the kind of instance first, then its prompt trees or its load.

Idea
    pd_aware keeps one kind of instance, separate or colocated. If the loads of that kind are balanced, locality
    decides: the longest prefix of this prompt (several: the least loaded). Otherwise, and where no match counts, the
    least loaded instance of that kind. The decode instance is the one with the least KV in use.
Reads
    The request's prompt length, chained prefix ids and predicted output length; of every instance its role, waiting
    and running requests and what least_loaded reads; time; the phase.
Parameters
    heatmap: as in pd_aware.
    match_threshold: as in locality.
    imbalance_requests: the loads count as unbalanced if the largest exceeds the smallest by more than this many
        requests, and ...
    imbalance_ratio: ... is also more than this many times the smallest.
    metric: what counts as load; as in least_loaded.
    max_prefixes: as in locality.
Source
    DeepServe (DeepFlow), arXiv 2501.14417, Algorithm 1. Its balance test, load and tie rules are not published: the
    thresholds are SGLang's (32, 1.1), the share of a match is Ray Serve's (0.1). Its parts alone: pd_aware, locality,
    and least_loaded as its load-aware step.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import ClusterView, Dispatch, PolicyKind, Range, RequestView
from policies.dispatch.load import LEAST_LOADED, Metric, least_kv
from policies.dispatch.locality import Locality
from policies.dispatch.pd_aware import PdAware
from policies.dispatch.prefix_index import unbalanced


@dataclass
class DeepFlow:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "deepflow"
    heatmap: str | None = None
    match_threshold: Annotated[float, Range(0, 1)] = 0.1
    imbalance_requests: Annotated[int, Range(0, 1024)] = 32
    imbalance_ratio: Annotated[float, Range(1, 10)] = 1.1
    metric: Metric = "tokens"
    max_prefixes: Annotated[int, Range(1, 2**24, log=True)] = 2**16
    rng: random.Random = field(init=False, repr=False)
    _kinds: PdAware = field(init=False, repr=False)
    _trees: Locality = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._kinds = PdAware(self.heatmap, self.metric)
        self._trees = Locality(self.match_threshold, self.metric, self.max_prefixes)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        instances, now_s = cluster.instances, cluster.now_s
        if cluster.phase == "decode":
            return Dispatch(least_kv(instances).instance_id)
        group, kind = self._kinds.group(request, instances)
        step = "unbalanced"
        holders = None
        if not unbalanced(group, self.imbalance_requests, self.imbalance_ratio):
            holders = self._trees.holders(request, group, now_s) if request.prefix_ids else None
            step = "prefix" if holders else "no prefix"
        chosen = LEAST_LOADED[self.metric](holders or group).instance_id
        if request.prefix_ids:
            self._trees.sent(request, chosen, instances, now_s)
        return Dispatch(chosen, None, f"{kind}, {step}")
