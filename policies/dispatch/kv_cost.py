"""Dynamo's KV router: the instance where prefill left to do plus blocks in use are fewest.

Idea
    cost = overlap_weight * prefill blocks + decode blocks. Prefill blocks: what waits there plus this prompt less the
    part that the instance was sent before; decode blocks: those in use. The lowest cost wins (several: the smallest
    prefix tree, then chance); with a temperature, a softmax over the costs, rescaled to [0, 1], draws. A hand-over
    needs no prefill, so there decode blocks alone count.
Reads
    The request's prompt length and chained prefix ids; of every instance its waiting tokens, free and total KV blocks,
    block size; time; the phase.
Parameters
    overlap_weight: how much a prompt block to compute counts against a block in use; 0: pure load.
    temperature: 0: the lowest cost; higher: more random.
    ttl_s: how long a prefix is believed to be cached after it was last sent.
    max_prefixes: how many prefix ids are remembered per instance; the least recently sent are forgotten first.
Source
    NVIDIA Dynamo, docs/router/kv_cache_routing.md and kv-router's selector (defaults 1, 0, 120 s, 2^20 blocks in
    all), in its mode without KV events. Its own tracking of what it sent is the host's report here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import exp
from typing import Annotated, ClassVar

from policies.api import ClusterView, Dispatch, PolicyKind, Range, RequestView
from policies.dispatch.prefix_index import PrefixIndex, hit_tokens


@dataclass
class KvCost:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "kv_cost"
    overlap_weight: Annotated[float, Range(0, 16)] = 1.0
    temperature: Annotated[float, Range(0, 10)] = 0.0
    ttl_s: Annotated[float, Range(1, 86400, log=True)] = 120.0
    max_prefixes: Annotated[int, Range(1, 2**24, log=True)] = 2**16
    rng: random.Random = field(init=False, repr=False)
    _index: PrefixIndex = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = PrefixIndex(self.max_prefixes, self.ttl_s)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        instances = cluster.instances
        costs = self.costs(request, cluster)
        place = self._lowest(costs, cluster) if self.temperature == 0 else self._draw(costs)
        chosen = instances[place].instance_id
        if request.prefix_ids and cluster.phase == "prefill":
            self._index.insert(request.prefix_ids, chosen, instances, cluster.now_s)
        return Dispatch(chosen, None, f"cost {costs[place]:.1f}")

    def costs(self, request: RequestView, cluster: ClusterView) -> list[float]:
        """The cost of each instance, in blocks, in the order of the view."""
        weight = self.overlap_weight
        if cluster.phase == "decode":
            return [float(view.total_blocks - view.free_blocks) for view in cluster.instances]
        found = self._index.matches(request.prefix_ids, cluster.now_s) if request.prefix_ids and weight else {}
        prompt = request.prompt_tokens
        costs = []
        for view in cluster.instances:
            depth = found.get(view.instance_id, 0)
            new_tokens = prompt - hit_tokens(request, depth) if depth else prompt
            prefill_blocks = (view.waiting_tokens + new_tokens) / view.block_tokens
            costs.append(weight * prefill_blocks + view.total_blocks - view.free_blocks)
        return costs

    def _lowest(self, costs: list[float], cluster: ClusterView) -> int:
        least = min(costs)
        places = [place for place, cost in enumerate(costs) if cost == least]
        if len(places) == 1:
            return places[0]
        sizes = [self._index.size(cluster.instances[place].instance_id) for place in places]
        smallest = min(sizes)
        return self.rng.choice([place for place, size in zip(places, sizes, strict=True) if size == smallest])

    def _draw(self, costs: list[float]) -> int:
        least, most = min(costs), max(costs)
        span = (most - least) * self.temperature or 1.0
        return self.rng.choices(range(len(costs)), [exp((least - cost) / span) for cost in costs])[0]
