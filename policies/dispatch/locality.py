"""The instance that was sent the longest prefix of the prompt, whatever its load.

Idea
    Most preserved KV wins; among several, the least loaded one. If nobody was sent enough of the prompt, and for
    hand-overs, the least loaded instance is taken. This is DeepServe's locality-aware step alone.
Reads
    The request's chained prefix ids; of every instance what least_loaded reads; time; the phase.
Parameters
    match_threshold: smallest share of the prompt's prefix ids that must match for the match to count.
    metric: what counts as load; as in least_loaded.
    max_prefixes: how many prefix ids are remembered per instance; the least recently sent are forgotten first.
Source
    DeepServe (DeepFlow), arXiv 2501.14417, section 5, with a global prompt tree per kind of instance; what happens
    without a match is not published. The 0.1 is that of Ray Serve's PrefixCacheAffinityRouter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import ClusterView, Dispatch, InstanceView, PolicyKind, Range, RequestView
from policies.dispatch.load import LEAST_LOADED, Metric
from policies.dispatch.prefix_index import PrefixIndex, longest_match


@dataclass
class Locality:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "locality"
    match_threshold: Annotated[float, Range(0, 1)] = 0.1
    metric: Metric = "tokens"
    max_prefixes: Annotated[int, Range(1, 2**24, log=True)] = 2**16
    rng: random.Random = field(init=False, repr=False)
    _index: PrefixIndex = field(init=False, repr=False)
    _least_loaded: Callable[[Sequence[InstanceView]], InstanceView] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = PrefixIndex(self.max_prefixes)
        self._least_loaded = LEAST_LOADED[self.metric]

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        instances = cluster.instances
        if not request.prefix_ids or cluster.phase == "decode":
            return Dispatch(self._least_loaded(instances).instance_id, None, "no prefix")
        holders = self.holders(request, instances, cluster.now_s)
        chosen = self._least_loaded(holders or instances).instance_id
        self.sent(request, chosen, instances, cluster.now_s)
        return Dispatch(chosen, None, "prefix" if holders else "least loaded")

    def holders(self, request: RequestView, instances: Sequence[InstanceView], now_s: float) -> list[InstanceView]:
        """Those of ``instances`` that hold the longest prefix of this prompt; none if it is too short to count."""
        ids = request.prefix_ids
        depth, holders = longest_match(self._index.matches(ids, now_s), instances)
        return holders if depth >= self.match_threshold * len(ids) else []

    def sent(self, request: RequestView, instance_id: int, ready: Sequence[InstanceView], now_s: float) -> None:
        """Note where this request went, whoever decided it."""
        self._index.insert(request.prefix_ids, instance_id, ready, now_s)
