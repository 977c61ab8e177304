"""The mean output length so far, for each kind of request apart.

Idea
    A running mean of the output lengths of the requests that finished, for each tenant, SLO class, or both. A group
    that is new leans on the mean of all, and that one on a prior: each counts as ``prior_requests`` requests that were
    seen before the first, so that few observations move a prediction little. Requests without a label get the mean of
    all. Rejected requests teach nothing.
Reads
    The request's tenant and SLO class; the output tokens of finished requests, when the host reports them.
Parameters
    by: what a group is: the tenant, the SLO class, both, or none (one mean for all).
    prior_tokens: what is predicted before the first request has finished.
    prior_requests: how many observations outweigh a prior.
Source
    None; the usual baseline of length predictors, shrunk towards the mean of all. Prior and weight are OURS: the
    default is near the mean of ShareGPT's answers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from policies.api import Choice, PolicyEvent, PolicyKind, Range, RequestView

_Group = tuple[str | None, str | None]
_NONE: _Group = (None, None)


@dataclass
class _Seen:
    requests: int = 0
    tokens: int = 0

    def mean(self, prior_tokens: float, prior_requests: int) -> float:
        return (prior_requests * prior_tokens + self.tokens) / (prior_requests + self.requests)


@dataclass
class MeanLearned:
    kind: ClassVar[PolicyKind] = "prediction"
    name: ClassVar[str] = "mean_learned"
    oracle: ClassVar[bool] = False
    by: Annotated[str, Choice("tenant", "slo_class", "both", "none")] = "both"
    prior_tokens: Annotated[int, Range(1, 1_000_000, log=True)] = 256
    prior_requests: Annotated[int, Range(1, 10_000, log=True)] = 10
    rng: random.Random = field(init=False, repr=False)
    _all: _Seen = field(init=False, repr=False, default_factory=_Seen)
    _groups: dict[_Group, _Seen] = field(init=False, repr=False, default_factory=dict)
    _under_way: dict[int, _Group] = field(init=False, repr=False, default_factory=dict)

    def predict(self, request: RequestView) -> int | None:
        group = self._group(request)
        self._under_way[request.request_id] = group
        tokens = self._all.mean(self.prior_tokens, self.prior_requests)
        if group != _NONE and group in self._groups:
            tokens = self._groups[group].mean(tokens, self.prior_requests)
        return max(1, round(tokens))

    def observe(self, event: PolicyEvent) -> None:
        if event.kind not in ("finished", "rejected"):
            return
        group = self._under_way.pop(event.request_id, None)
        if group is None or event.kind == "rejected":
            return
        for seen in (self._all, self._groups.setdefault(group, _Seen())):
            seen.requests += 1
            seen.tokens += event.tokens

    def _group(self, request: RequestView) -> _Group:
        by_tenant, by_class = self.by in ("tenant", "both"), self.by in ("slo_class", "both")
        return request.tenant if by_tenant else None, request.slo_class if by_class else None
