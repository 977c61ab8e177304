"""The instance with the least load.

Idea
    Join the shortest queue, with the queue measured in requests, in tokens or in KV blocks. Ties go to the lowest id.
    With stale reports many requests in a row see the same shortest queue and herd there.
Reads
    Of every instance: waiting and running requests; or waiting and context tokens; or KV blocks and waiting tokens.
Parameters
    metric: what counts as load: unfinished requests, their tokens (prompt tokens to compute plus context held), or
        the share of KV blocks in use plus those that waiting prompts will need.
Source
    Join-shortest-queue; Vidur's "least outstanding requests", splitwise-sim's jsq and token_jsq.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from policies.api import ClusterView, Dispatch, InstanceView, PolicyKind, RequestView
from policies.dispatch.load import LEAST_LOADED, Metric


@dataclass
class LeastLoaded:
    kind: ClassVar[PolicyKind] = "dispatch"
    name: ClassVar[str] = "least_loaded"
    metric: Metric = "tokens"
    rng: random.Random = field(init=False, repr=False)
    _least_loaded: Callable[[Sequence[InstanceView]], InstanceView] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._least_loaded = LEAST_LOADED[self.metric]

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        return Dispatch(self._least_loaded(cluster.instances).instance_id)
