"""Preble's E2: exploit a cached prefix where it is the larger part of the prompt, explore the cheapest otherwise.

Idea
    If more of the prompt was sent to some instance before than is new, the least loaded of those that hold the longest
    prefix is taken - unless its load exceeds that of the lightest one, this prompt's cost there included, by more than
    a factor; then the lightest gets it, and with it a copy of the prefix. Otherwise the lowest of load + eviction +
    prefill. Load is the prefill time sent there within the window plus a decode time per unfinished request; eviction
    is what the room for the new tokens costs later, taken as their own prefill time times the share of prompt tokens
    that lately were hits there (caches are taken to be full, as in the source). Hand-overs go to the fewest tokens.
Reads
    The request's prompt length, chained prefix ids, predicted output length; of every instance waiting and running
    requests and context tokens; the latency estimate; what finished (output lengths); time; the phase.
Parameters
    window_s: how long what was sent counts as load.
    rebalance_ratio: factor between the loads at which a cached prefix is not exploited any more.
    output_tokens: output length taken before anything has finished, where none is predicted.
    max_prefixes: how many prefix ids are remembered per instance; the least recently sent are forgotten first.
Source
    Preble, arXiv 2407.00023 (ICLR 2025), algorithm E2, and WukLab/preble (window 3 min, 45 tokens). Its measured
    time per output token (0.15 s at first) is the host's estimate of one decode iteration here. The published code
    has rebalancing switched off, with a factor of 15; 1.5 is the survey's.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import ClusterView, Dispatch, PolicyEvent, PolicyKind, Range, RequestView
from policies.dispatch.load import fewest_tokens
from policies.dispatch.prefix_index import PrefixIndex, hit_tokens
from policies.dispatch.windowed_work import WindowedWork

_MEMORY = 200  # the mean output length follows about as many finished requests


@dataclass
class PrebleE2:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "preble_e2"
    window_s: Annotated[float, Range(1, 3600, log=True)] = 180.0
    rebalance_ratio: Annotated[float, Range(1, 100, log=True)] = 1.5
    output_tokens: Annotated[int, Range(1, 100_000, log=True)] = 45
    max_prefixes: Annotated[int, Range(1, 2**24, log=True)] = 2**16
    rng: random.Random = field(init=False, repr=False)
    _index: PrefixIndex = field(init=False, repr=False)
    _work: WindowedWork = field(init=False, repr=False)
    _mean_output: float = field(init=False, repr=False)
    _last_token_s: float = field(init=False, repr=False, default=0.0)
    _token_until_s: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        self._index = PrefixIndex(self.max_prefixes)
        self._work = WindowedWork(self.window_s)
        self._mean_output = float(self.output_tokens)

    def observe(self, event: PolicyEvent) -> None:
        if event.kind == "finished":
            self._mean_output += (event.tokens - self._mean_output) / _MEMORY

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        instances = cluster.instances
        if cluster.phase == "decode":
            return Dispatch(fewest_tokens(instances).instance_id)
        found = self._index.matches(request.prefix_ids, cluster.now_s) if request.prefix_ids else {}
        prefill_s = _PrefillTimes(request, cluster)
        chosen, reason = self._choose(request, cluster, found, prefill_s)
        depth = found.get(chosen, 0)
        hit = hit_tokens(request, depth) if depth else 0
        self._work.add(chosen, cluster.now_s, prefill_s(depth), request.prompt_tokens, hit)
        if request.prefix_ids:
            self._index.insert(request.prefix_ids, chosen, instances, cluster.now_s)
        return Dispatch(chosen, None, reason)

    def _choose(
        self, request: RequestView, cluster: ClusterView, found: dict[int, int], prefill_s: _PrefillTimes
    ) -> tuple[int, str]:
        instances = cluster.instances
        loads_s = self._loads_s(request, cluster)
        best = max((found.get(view.instance_id, 0) for view in instances), default=0) if found else 0
        if 2 * best * request.prefix_block_tokens <= request.prompt_tokens:
            return instances[self._cheapest(cluster, loads_s, found, prefill_s)].instance_id, "explore"
        holders = [place for place, view in enumerate(instances) if found.get(view.instance_id) == best]
        chosen = min(holders, key=loads_s.__getitem__)
        lightest = loads_s.index(min(loads_s))
        there_s = loads_s[lightest] + prefill_s(found.get(instances[lightest].instance_id, 0))
        if loads_s[chosen] > self.rebalance_ratio * there_s:
            return instances[lightest].instance_id, "rebalance"
        return instances[chosen].instance_id, "exploit"

    def _cheapest(
        self, cluster: ClusterView, loads_s: list[float], found: dict[int, int], prefill_s: _PrefillTimes
    ) -> int:
        """Place of the instance with the lowest load + eviction + prefill."""
        sent = self._work.totals(cluster.now_s)
        costs_s = []
        for view, load_s in zip(cluster.instances, loads_s, strict=True):
            before = sent.get(view.instance_id)
            new_s = prefill_s(found.get(view.instance_id, 0))
            costs_s.append(load_s + new_s + (new_s * before.hit_tokens / before.prompt_tokens if before else 0.0))
        return costs_s.index(min(costs_s))

    def _loads_s(self, request: RequestView, cluster: ClusterView) -> list[float]:
        """Of each instance: prefill sent within the window plus decode of what has not finished, in seconds."""
        decode_s = self._token_s(cluster) * (request.predicted_output_tokens or self._mean_output)
        sent = self._work.totals(cluster.now_s)
        loads_s = []
        for view in cluster.instances:
            before = sent.get(view.instance_id)
            unfinished_s = (view.waiting_requests + view.running_requests) * decode_s
            loads_s.append(unfinished_s + before.prefill_s if before else unfinished_s)
        return loads_s

    def _token_s(self, cluster: ClusterView) -> float:
        """One decode iteration of an instance of average load, estimated anew every second."""
        if cluster.now_s >= self._token_until_s:
            instances = cluster.instances
            running = sum([view.running_requests for view in instances]) // len(instances)
            context = sum([view.context_tokens for view in instances]) // len(instances)
            self._last_token_s = cluster.estimate.decode_s(max(1, running), max(1, context))
            self._token_until_s = cluster.now_s + 1.0
        return self._last_token_s


class _PrefillTimes:
    """Prefill time of one request by how many of its leading prefix ids are cached, each asked of the host once."""

    def __init__(self, request: RequestView, cluster: ClusterView) -> None:
        self._request = request
        self._estimate = cluster.estimate
        self._known: dict[int, float] = {}

    def __call__(self, depth: int) -> float:
        seconds = self._known.get(depth)
        if seconds is None:
            hit = hit_tokens(self._request, depth) if depth else 0
            seconds = self._known[depth] = self._estimate.prefill_s(self._request.prompt_tokens - hit, hit)
        return seconds
