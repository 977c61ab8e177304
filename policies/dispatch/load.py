"""How loaded an instance is, and which of several is the least loaded (ties: the lowest id).

Plain loops over named fields: ``min(instances, key=...)`` and the view's own properties cost two to three times as
much, and this runs once per request over all instances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from policies.api import Choice, InstanceView

Metric = Annotated[str, Choice("requests", "tokens", "kv")]


def fewest_requests(instances: Sequence[InstanceView]) -> InstanceView:
    """The instance with the fewest requests that have not finished, waiting ones included."""
    best = instances[0]
    least = best.waiting_requests + best.running_requests
    for view in instances:
        load = view.waiting_requests + view.running_requests
        if load < least:
            least = load
            best = view
    return best


def fewest_tokens(instances: Sequence[InstanceView]) -> InstanceView:
    """The instance with the fewest tokens: prompt tokens still to compute plus context tokens held."""
    best = instances[0]
    least = best.waiting_tokens + best.context_tokens
    for view in instances:
        load = view.waiting_tokens + view.context_tokens
        if load < least:
            least = load
            best = view
    return best


def least_kv(instances: Sequence[InstanceView]) -> InstanceView:
    """The instance with the smallest share of KV blocks in use, those that its waiting prompts will need included."""
    best = instances[0]
    least = float("inf")
    for view in instances:
        load = (view.waiting_tokens / view.block_tokens - view.free_blocks) / view.total_blocks
        if load < least:
            least = load
            best = view
    return best


LEAST_LOADED: dict[str, Callable[[Sequence[InstanceView]], InstanceView]] = {
    "requests": fewest_requests,
    "tokens": fewest_tokens,
    "kv": least_kv,
}
