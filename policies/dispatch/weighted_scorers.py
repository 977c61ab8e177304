"""llm-d's router: drop some candidates, add up weighted scores, pick.

Idea
    Filters leave the candidates (all of them, if a filter would leave none). Every scorer gives each a score in
    [0, 1]: the share of the prompt that it was sent before, how short its queue is among the candidates, its free KV;
    optionally its load and tokens against fixed ceilings, whether the session was there before, and how long ago it was
    sent a prompt that nobody held. The weighted sum decides. At a hand-over nothing is computed, so neither prefix nor
    session counts there.
Reads
    The request's chained prefix ids and session; of every instance waiting requests, waiting and context tokens, free
    and total KV blocks, the age of its report; time; the phase.
Parameters
    prefix_weight: weight of the share of the prompt's prefix ids that the instance was sent.
    queue_weight: weight of (longest queue - own) / (longest - shortest).
    kv_weight: weight of the free share of its KV blocks.
    load_weight: weight of 0.5 less what waits, down to 0 at load_ceiling.
    token_weight: weight of 1 less its outstanding tokens, down to 0 at token_ceiling.
    session_weight: weight of 1 for the instance that the session's last request went to.
    cold_weight: for prompts that nobody holds, weight of a rank from 1 to 0: never sent one, then longest ago, first.
    load_ceiling: waiting requests at which the load score is 0.
    token_ceiling: outstanding tokens at which the token score is 0.
    saturation: whether saturated instances are no candidates.
    max_queue: more waiting requests than this saturate an instance.
    max_kv_use: a larger share of KV blocks in use than this saturates an instance.
    max_age_s: an instance whose report is older than this counts as saturated.
    affinity_threshold: only instances holding at least this share of the prompt are candidates, if there are any;
        none: no such filter.
    explore: how often, by chance, the affinity filter is left out.
    picker: the best score (several: by chance), or a draw with the scores as weights.
    max_prefixes: how many prefix ids are remembered per instance; the least recently sent are forgotten first.
Source
    llm-d inference scheduler (Gateway API inference extension): default weights 2, 1, 1; ceilings 128 and 4194304;
    saturation detector 5, 0.8, 200 ms, here as a filter; prefix-affinity filter 0.80 with 0.01; LRU 31250 per server.
    Its scorer of predicted latency is not here.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import Choice, ClusterView, Dispatch, InstanceView, PolicyKind, Range, RequestView
from policies.dispatch.prefix_index import PrefixIndex
from policies.dispatch.scorers import (
    cold_scores,
    kv_scores,
    load_scores,
    prefix_scores,
    queue_scores,
    session_scores,
    token_scores,
)

Weight = Annotated[float, Range(0, 100)]
_MAX_SESSIONS = 2**16
_MAX_COLD = 1024


@dataclass
class WeightedScorers:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "weighted_scorers"
    prefix_weight: Weight = 2.0
    queue_weight: Weight = 1.0
    kv_weight: Weight = 1.0
    load_weight: Weight = 0.0
    token_weight: Weight = 0.0
    session_weight: Weight = 0.0
    cold_weight: Weight = 0.0
    load_ceiling: Annotated[int, Range(1, 4096)] = 128
    token_ceiling: Annotated[int, Range(1, 2**32, log=True)] = 4_194_304
    saturation: bool = False
    max_queue: Annotated[int, Range(0, 4096)] = 5
    max_kv_use: Annotated[float, Range(0, 1)] = 0.8
    max_age_s: Annotated[float, Range(0.001, 600, log=True)] = 0.2
    affinity_threshold: Annotated[float | None, Range(0, 1)] = None
    explore: Annotated[float, Range(0, 1)] = 0.01
    picker: Annotated[str, Choice("max_score", "weighted_random")] = "max_score"
    max_prefixes: Annotated[int, Range(1, 2**24, log=True)] = 31_250
    rng: random.Random = field(init=False, repr=False)
    _index: PrefixIndex = field(init=False, repr=False)
    _sessions: OrderedDict[str, int] = field(init=False, repr=False, default_factory=OrderedDict)
    """Session -> the instance that its last request went to, oldest first."""
    _cold: OrderedDict[int, None] = field(init=False, repr=False, default_factory=OrderedDict)
    """Instances by when they were last sent a prompt that nobody held, oldest first."""

    def __post_init__(self) -> None:
        self._index = PrefixIndex(self.max_prefixes)

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        ids = request.prefix_ids if cluster.phase == "prefill" else ()
        found = self._index.matches(ids, cluster.now_s) if ids else {}
        candidates = self._candidates(cluster, found, len(ids))
        scores = self.scores(candidates, found, len(ids))
        if cluster.phase == "prefill":
            scores = self._with_memory(scores, request, candidates, cold=not found)
        place = self._pick(scores)
        chosen = candidates[place].instance_id
        if cluster.phase == "prefill":
            self._remember(request, chosen, cold=not found)
        if ids:
            self._index.insert(ids, chosen, cluster.instances, cluster.now_s)
        return Dispatch(chosen, None, f"score {scores[place]:.2f}")

    def scores(self, candidates: list[InstanceView], found: dict[int, int], prefix_ids: int) -> list[float]:
        """Each candidate's weighted sum of what is read of it; ``found`` has the leading ids (of ``prefix_ids``) that
        an instance holds."""
        total = [0.0] * len(candidates)
        if found and self.prefix_weight:
            matched = [found.get(view.instance_id, 0) for view in candidates]
            total = _added(total, self.prefix_weight, prefix_scores(matched, prefix_ids))
        if self.queue_weight:
            total = _added(total, self.queue_weight, queue_scores(candidates))
        if self.kv_weight:
            total = _added(total, self.kv_weight, kv_scores(candidates))
        if self.load_weight:
            total = _added(total, self.load_weight, load_scores(candidates, self.load_ceiling))
        if self.token_weight:
            total = _added(total, self.token_weight, token_scores(candidates, self.token_ceiling))
        return total

    def _with_memory(
        self, total: list[float], request: RequestView, candidates: list[InstanceView], *, cold: bool
    ) -> list[float]:
        """Plus what the policy remembers of earlier requests."""
        if self.session_weight and request.session_id is not None:
            last = self._sessions.get(request.session_id)
            total = _added(total, self.session_weight, session_scores(candidates, last))
        if self.cold_weight and cold:
            total = _added(total, self.cold_weight, cold_scores(candidates, self._cold))
        return total

    def _remember(self, request: RequestView, chosen: int, *, cold: bool) -> None:
        if self.session_weight and request.session_id is not None:
            self._sessions[request.session_id] = chosen
            self._sessions.move_to_end(request.session_id)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        if self.cold_weight and cold:
            self._cold[chosen] = None
            self._cold.move_to_end(chosen)
            if len(self._cold) > _MAX_COLD:
                self._cold.popitem(last=False)

    def _candidates(self, cluster: ClusterView, found: dict[int, int], prefix_ids: int) -> list[InstanceView]:
        candidates = list(cluster.instances)
        if self.saturation:
            candidates = [view for view in candidates if not self._saturated(view, cluster.now_s)] or candidates
        if found and self.affinity_threshold is not None and self.rng.random() >= self.explore:
            enough = self.affinity_threshold * prefix_ids
            candidates = [view for view in candidates if found.get(view.instance_id, 0) >= enough] or candidates
        return candidates

    def _saturated(self, view: InstanceView, now_s: float) -> bool:
        return (
            view.waiting_requests > self.max_queue
            or view.total_blocks - view.free_blocks > self.max_kv_use * view.total_blocks
            or now_s - view.observed_at_s > self.max_age_s
        )

    def _pick(self, scores: list[float]) -> int:
        best = max(scores)
        if self.picker == "weighted_random" and best > 0:
            return self.rng.choices(range(len(scores)), scores)[0]
        places = [place for place, score in enumerate(scores) if score == best]
        return places[0] if len(places) == 1 else self.rng.choice(places)


def _added(total: list[float], weight: float, scores: list[float]) -> list[float]:
    return [sum_ + weight * score for sum_, score in zip(total, scores, strict=True)]
