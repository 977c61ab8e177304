"""The instance that most likely still holds the longest prefix of the prompt, while the load is balanced.

Idea
    The policy remembers where it sent which prefix. If the loads have drifted apart, the least loaded instance is
    taken. Otherwise the one that was last sent the longest prefix of this prompt (among several, the least loaded),
    if that prefix covers enough of the prompt; failing that, the least loaded one. What it remembers is only its own
    routing: an instance may have evicted the prefix meanwhile. Hand-overs (phase decode) go by load alone.
Reads
    The request's chained prefix ids; of every instance its id, waiting and running requests; the phase.
Parameters
    match_threshold: smallest share of the prompt's prefix ids that must match for the match to count.
    imbalance_requests: the loads count as unbalanced if the largest exceeds the smallest by more than this many
        requests, and ...
    imbalance_ratio: ... is also more than this many times the smallest.
    max_prefixes: how many prefix ids are remembered; the least recently used are forgotten first.
Source
    SGLang's cache-aware router (thresholds 0.5, 32, 1.1 are its documented defaults) and Ray Serve's
    PrefixCacheAffinityRouter; the same skeleton as Algorithm 1 of DeepServe (arXiv 2501.14417). Where SGLang falls
    back to the smallest prefix tree, this takes the least loaded instance. Known weakness: herding under stale
    reports (sglang issue 14532).
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from operator import itemgetter
from typing import Annotated, ClassVar

from policies.api import ClusterView, Dispatch, InstanceView, PolicyKind, Range, RequestView
from policies.dispatch.load import fewest_requests

_instance_id = itemgetter(0)
_MAX_HOLDERS = 8  # a system prompt that everybody shares is on every instance; the latest few are choice enough


@dataclass
class PrefixAffinity:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "prefix_affinity"
    match_threshold: Annotated[float, Range(0, 1)] = 0.5
    imbalance_requests: Annotated[int, Range(0, 1024)] = 32
    imbalance_ratio: Annotated[float, Range(1, 10)] = 1.1
    max_prefixes: Annotated[int, Range(1, 2**24, log=True)] = 2**18
    rng: random.Random = field(init=False, repr=False)
    _holders: OrderedDict[int, tuple[int, ...]] = field(init=False, repr=False, default_factory=OrderedDict)
    """Prefix id -> instances that it was sent to, latest first. Ordered by use, a prefix after its continuations:
    so the oldest entry never is an ancestor of a younger one, and presence along a chain is monotone."""

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        instances = cluster.instances
        ids = request.prefix_ids
        if not ids or cluster.phase == "decode":
            return Dispatch(fewest_requests(instances).instance_id, None, "no prefix")
        reason = "prefix"
        chosen = self._longest_match(ids, instances)
        if chosen is None or self._unbalanced(instances):
            reason = "least loaded" if chosen is None else "unbalanced"
            chosen = fewest_requests(instances)
        self._remember(ids, chosen.instance_id)
        return Dispatch(chosen.instance_id, None, reason)

    def _unbalanced(self, instances: Sequence[InstanceView]) -> bool:
        loads = [view.waiting_requests + view.running_requests for view in instances]
        least, most = min(loads), max(loads)
        return most - least > self.imbalance_requests and most > self.imbalance_ratio * least

    def _longest_match(self, ids: tuple[int, ...], instances: Sequence[InstanceView]) -> InstanceView | None:
        holders = self._holders
        known = self._known(ids)
        fewest = max(1, ceil(self.match_threshold * len(ids)))
        while known >= fewest:
            ready = _select(instances, holders.get(ids[known - 1], ()))
            if ready:
                return fewest_requests(ready) if len(ready) > 1 else ready[0]
            known -= 1
        return None

    def _known(self, ids: tuple[int, ...]) -> int:
        """How many leading ids are remembered, by bisection."""
        holders = self._holders
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if ids[middle] in holders:
                low = middle + 1
            else:
                high = middle
        return low

    def _remember(self, ids: tuple[int, ...], instance_id: int) -> None:
        holders = self._holders
        alone = (instance_id,)
        for prefix_id in reversed(ids):
            before = holders.get(prefix_id)
            if before is None:
                holders[prefix_id] = alone
                continue
            holders.move_to_end(prefix_id)
            if before[0] != instance_id:
                others = [holder for holder in before if holder != instance_id]
                holders[prefix_id] = (instance_id, *others[: _MAX_HOLDERS - 1])
        while len(holders) > self.max_prefixes:
            holders.popitem(last=False)


def _select(instances: Sequence[InstanceView], wanted: tuple[int, ...]) -> list[InstanceView]:
    """Those of ``instances`` (ascending ids) that are wanted."""
    found = []
    for instance_id in wanted:
        index = bisect_left(instances, instance_id, key=_instance_id)
        if index < len(instances) and instances[index].instance_id == instance_id:
            found.append(instances[index])
    return found
