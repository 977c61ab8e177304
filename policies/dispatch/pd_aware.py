"""Prefill and decode on separate instances where that pays for this request, colocated ones elsewhere.

Idea
    A heatmap over prompt length and decode/prompt ratio says which kind of instance finishes such a request sooner.
    Of that kind the least loaded instance is taken; of the other, where there is none. Unknown cells and requests of
    unknown output length go to separate instances, since a wrong choice of those costs little. The decode instance is
    the one with the least KV in use.
Reads
    The request's prompt length and predicted output length (so it needs a predictor); of every instance its role and
    what least_loaded reads; the phase.
Parameters
    heatmap: a CSV or JSON file with the columns prompt_tokens, decode_ratio (upper edges of a bin) and advantage
        (colocated job time / separate - 1, profiled at one rate; rates are added up), read once, when the policy is
        built; none: an estimate that ships with it.
    metric: what counts as load; as in least_loaded.
Source
    DeepServe (DeepFlow), arXiv 2501.14417, section 5 and figure 6. The paper's own heatmap is not published, nor how
    the decode instance is picked (here as in xDeepServe, arXiv 2508.02520).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from policies.api import ClusterView, Dispatch, InstanceView, PolicyKind, RequestView
from policies.dispatch.heatmap import ESTIMATED, Heatmap, read_heatmap
from policies.dispatch.load import LEAST_LOADED, Metric, least_kv


@dataclass
class PdAware:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "pd_aware"
    heatmap: str | None = None
    metric: Metric = "tokens"
    rng: random.Random = field(init=False, repr=False)
    _table: Heatmap = field(init=False, repr=False)
    _least_loaded: Callable[[Sequence[InstanceView]], InstanceView] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._table = ESTIMATED if self.heatmap is None else read_heatmap(self.heatmap)
        self._least_loaded = LEAST_LOADED[self.metric]

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        if cluster.phase == "decode":
            return Dispatch(least_kv(cluster.instances).instance_id)
        group, reason = self.group(request, cluster.instances)
        return Dispatch(self._least_loaded(group).instance_id, None, reason)

    def group(self, request: RequestView, instances: Sequence[InstanceView]) -> tuple[Sequence[InstanceView], str]:
        """The instances of the kind that suits this request (of the other kind, if there is none), and which it is."""
        separate = [view for view in instances if view.role == "prefill"]
        if not separate or len(separate) == len(instances):
            return instances, "one kind only"
        decode_tokens = request.predicted_output_tokens
        if decode_tokens is None:
            return separate, "separate: length unknown"
        if self._table.advantage(request.prompt_tokens, decode_tokens) >= 0:
            return separate, "separate"
        return [view for view in instances if view.role != "prefill"], "colocated"
