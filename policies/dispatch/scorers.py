"""Scores of instances from 0 (worst) to 1 (best), as llm-d's scorers give them; one list per scorer, in view order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.api import InstanceView


def prefix_scores(matched: Sequence[int], prefix_ids: int) -> list[float]:
    """Share of the prompt's prefix ids that each instance holds."""
    return [each / prefix_ids if prefix_ids else 0.0 for each in matched]


def queue_scores(instances: Sequence[InstanceView]) -> list[float]:
    """(longest - own) / (longest - shortest) waiting queue; 1 for all where all are equally long."""
    queues = [view.waiting_requests for view in instances]
    longest, shortest = max(queues), min(queues)
    if longest == shortest:
        return [1.0] * len(queues)
    return [(longest - queue) / (longest - shortest) for queue in queues]


def kv_scores(instances: Sequence[InstanceView]) -> list[float]:
    """Share of KV blocks that is free."""
    return [view.free_blocks / view.total_blocks for view in instances]


def load_scores(instances: Sequence[InstanceView], threshold: int) -> list[float]:
    """0.5 with nothing waiting, falling to 0 at ``threshold`` waiting requests."""
    return [0.5 * (1 - min(view.waiting_requests, threshold) / threshold) for view in instances]


def token_scores(instances: Sequence[InstanceView], threshold: int) -> list[float]:
    """1 without outstanding tokens, falling to 0 at ``threshold``."""
    return [1 - min(view.waiting_tokens + view.context_tokens, threshold) / threshold for view in instances]


def session_scores(instances: Sequence[InstanceView], last: int | None) -> list[float]:
    """1 for the instance that the session's last request went to, 0 for the others."""
    return [1.0 if view.instance_id == last else 0.0 for view in instances]


def cold_scores(instances: Sequence[InstanceView], oldest_first: Iterable[int]) -> list[float]:
    """From 1 to 0 by when each was last sent a request that nobody held anything of: never, then longest ago, first."""
    order = {instance_id: place for place, instance_id in enumerate(oldest_first)}
    fresh = [view.instance_id for view in instances if view.instance_id not in order]
    rank = {instance_id: place for place, instance_id in enumerate(fresh)}
    last = max(1, len(instances) - 1)
    ranks = [rank.get(view.instance_id, len(fresh) + order.get(view.instance_id, 0)) for view in instances]
    return [max(0.0, 1 - each / last) for each in ranks]
