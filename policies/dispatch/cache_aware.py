"""SGLang's cache-aware router: affinity while the load is balanced, the shortest queue once it is not.

Idea
    If the loads have drifted apart, the shortest queue is taken. Otherwise the instance that was sent the longest
    prefix of this prompt (one of them by chance), if that prefix covers more than a share of the prompt. Failing that,
    the instance with the smallest prefix tree, as the one with the most cache to spare, however loaded it is: prompts
    that nobody holds herd on it until its tree has grown (sglang 14532). ``on_miss=least_loaded`` is the later repair.
    Hand-overs and requests without prefix ids go to the shortest queue.
Reads
    The request's chained prefix ids; of every instance its id, waiting and running requests; the phase.
Parameters
    match_threshold: a match counts if it covers more than this share of the prompt's prefix ids.
    imbalance_requests: the loads count as unbalanced if the largest exceeds the smallest by more than this many
        requests, and ...
    imbalance_ratio: ... is also more than this many times the smallest.
    on_miss: who gets a prompt whose match does not count.
    max_prefixes: how many prefix ids are remembered per instance; the least recently sent are forgotten first. The
        source bounds characters, by a periodic sweep.
Source
    SGLang's router (sgl-router, now Shepherd Model Gateway), ``cache_aware.rs`` with its defaults 0.5, 32, 1.1; its
    rule for misses until December 2025 (sglang 14650), and the one since.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import Choice, ClusterView, Dispatch, InstanceView, PolicyKind, Range, RequestView
from policies.dispatch.load import fewest_requests
from policies.dispatch.prefix_index import PrefixIndex, longest_match, unbalanced


@dataclass
class CacheAware:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "cache_aware"
    match_threshold: Annotated[float, Range(0, 1)] = 0.5
    imbalance_requests: Annotated[int, Range(0, 1024)] = 32
    imbalance_ratio: Annotated[float, Range(1, 10)] = 1.1
    on_miss: Annotated[str, Choice("smallest_tree", "least_loaded")] = "smallest_tree"
    max_prefixes: Annotated[int, Range(1, 2**24, log=True)] = 2**16
    rng: random.Random = field(init=False, repr=False)
    _index: PrefixIndex = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = PrefixIndex(self.max_prefixes)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        instances = cluster.instances
        if not request.prefix_ids or cluster.phase == "decode":
            return Dispatch(fewest_requests(instances).instance_id, None, "no prefix")
        chosen, reason = self._choose(request, cluster)
        self._index.insert(request.prefix_ids, chosen.instance_id, instances, cluster.now_s)
        return Dispatch(chosen.instance_id, None, reason)

    def _choose(self, request: RequestView, cluster: ClusterView) -> tuple[InstanceView, str]:
        instances = cluster.instances
        if unbalanced(instances, self.imbalance_requests, self.imbalance_ratio):
            return fewest_requests(instances), "unbalanced"
        ids = request.prefix_ids
        depth, holders = longest_match(self._index.matches(ids, cluster.now_s), instances)
        if depth > self.match_threshold * len(ids):
            return (holders[0] if len(holders) == 1 else self.rng.choice(holders)), "prefix"
        if self.on_miss == "least_loaded":
            return fewest_requests(instances), "least loaded"
        return self._smallest_tree(cluster), "smallest tree"

    def _smallest_tree(self, cluster: ClusterView) -> InstanceView:
        """Ties by chance: the source takes whichever its hash map yields first."""
        size = self._index.size
        sizes = [size(view.instance_id) for view in cluster.instances]
        smallest = min(sizes)
        return self.rng.choice([view for view, each in zip(cluster.instances, sizes, strict=True) if each == smallest])
