"""Mooncake's conductor: the instance with the earliest first token, and no to what would miss its target anyway.

Idea
    For every instance: time to work off what waits there, plus the prefill of what of this prompt it was not sent
    before. The earliest wins (several: the fewest requests), so cache and load weigh in seconds. If even that misses
    the TTFT target, or the time per token expected at decode misses its target, the request is refused at once, before
    it costs a prefill (early rejection). A hand-over goes to the instance with the shortest expected decode iteration.
    Mooncake also pulls a much better prefix from another instance; no host of this contract can, so a hot prefix
    spreads by being computed again, and the pull's balancing threshold has no counterpart.
Reads
    The request's prompt length and chained prefix ids; of every instance its role, waiting tokens, waiting and running
    requests, context tokens; the latency estimate; time; the phase. For early rejection the decode instances as the
    last hand-over showed them.
Parameters
    ttft_target_s: refuse what is expected to take longer to its first token; none: never.
    tpot_target_s: refuse what is expected to take longer per token; none: never.
    max_prefixes: how many prefix ids are remembered per instance; the least recently sent are forgotten first.
Source
    Mooncake, arXiv 2407.00079, algorithm 1 and section 7 (prediction at the time decode starts: here what prefill
    instances hold is expected to have arrived by then, and nothing to have finished).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import ClusterView, Dispatch, Estimate, InstanceView, PolicyKind, Range, Reject, RequestView
from policies.dispatch.load import fewest_requests, fewest_tokens
from policies.dispatch.prefix_index import PrefixIndex, hit_tokens

_QUEUE_CHUNK = 8192  # what waits is taken to be computed in iterations of this many tokens


@dataclass
class Mooncake:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "mooncake"
    ttft_target_s: Annotated[float | None, Range(0.001, 3600, log=True)] = None
    tpot_target_s: Annotated[float | None, Range(0.0001, 60, log=True)] = None
    max_prefixes: Annotated[int, Range(1, 2**24, log=True)] = 2**16
    rng: random.Random = field(init=False, repr=False)
    _index: PrefixIndex = field(init=False, repr=False)
    _decodes: tuple[InstanceView, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        self._index = PrefixIndex(self.max_prefixes)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch | Reject:
        if cluster.phase == "decode":
            self._decodes = tuple(cluster.instances)
            return Dispatch(_shortest_iteration(request, cluster.instances, cluster.estimate)[0].instance_id)
        chosen, ttft_s = self.earliest(request, cluster)
        if self.ttft_target_s is not None and ttft_s > self.ttft_target_s:
            return Reject(f"TTFT {ttft_s:.3f} s expected, {self.ttft_target_s:g} s allowed")
        if self.tpot_target_s is not None:
            tpot_s = self._tpot_s(request, chosen, cluster)
            if tpot_s > self.tpot_target_s:
                return Reject(f"TPOT {tpot_s:.4f} s expected, {self.tpot_target_s:g} s allowed")
        if request.prefix_ids:
            self._index.insert(request.prefix_ids, chosen.instance_id, cluster.instances, cluster.now_s)
        return Dispatch(chosen.instance_id, None, f"TTFT {ttft_s:.3f} s")

    def earliest(self, request: RequestView, cluster: ClusterView) -> tuple[InstanceView, float]:
        """The instance with the earliest first token, and how long it is expected to take."""
        estimate, prompt = cluster.estimate, request.prompt_tokens
        found = self._index.matches(request.prefix_ids, cluster.now_s) if request.prefix_ids else {}
        token_s = estimate.prefill_s(_QUEUE_CHUNK) / _QUEUE_CHUNK
        times_s = {0: estimate.prefill_s(prompt)}
        best, least = cluster.instances[0], float("inf")
        for view in cluster.instances:
            depth = found.get(view.instance_id, 0)
            if depth not in times_s:
                hit = hit_tokens(request, depth)
                times_s[depth] = estimate.prefill_s(prompt - hit, hit)
            ttft_s = view.waiting_tokens * token_s + times_s[depth]
            if ttft_s < least or (ttft_s == least and _requests(view) < _requests(best)):
                best, least = view, ttft_s
        return best, least

    def _tpot_s(self, request: RequestView, chosen: InstanceView, cluster: ClusterView) -> float:
        """Expected time per token of this request if ``chosen`` takes it; 0 where nothing is known yet."""
        if chosen.role != "prefill":
            return _iteration_s(request, chosen, cluster.estimate)
        if not self._decodes:
            return 0.0
        ahead = [view for view in cluster.instances if view.role == "prefill"]
        requests = sum(view.waiting_requests + view.running_requests for view in ahead) // len(self._decodes)
        tokens = sum(view.waiting_tokens + view.context_tokens for view in ahead) // len(self._decodes)
        return _shortest_iteration(request, self._decodes, cluster.estimate, requests, tokens)[1]


def _requests(view: InstanceView) -> int:
    return view.waiting_requests + view.running_requests


def _shortest_iteration(
    request: RequestView, instances: Sequence[InstanceView], estimate: Estimate, requests: int = 0, tokens: int = 0
) -> tuple[InstanceView, float]:
    """Of the instances with the fewest tokens and the fewest requests the one with the shorter decode iteration."""
    best = fewest_tokens(instances)
    least_s = _iteration_s(request, best, estimate, requests, tokens)
    other = fewest_requests(instances)
    if other is not best:
        other_s = _iteration_s(request, other, estimate, requests, tokens)
        if other_s < least_s:
            return other, other_s
    return best, least_s


def _iteration_s(
    request: RequestView, view: InstanceView, estimate: Estimate, requests: int = 0, tokens: int = 0
) -> float:
    """One decode iteration there with this request and ``requests`` others of ``tokens`` on top of what it has."""
    sequences = view.waiting_requests + view.running_requests + requests + 1
    return estimate.decode_s(sequences, view.waiting_tokens + view.context_tokens + tokens + request.prompt_tokens)
