"""The smallest clusters of each kind that carry one load: Splitwise's iso-throughput designs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from experiments.anchors.splitwise_clusters import Cluster

Carries = Callable[[Cluster], bool]
_MOST_PROMPTS, _MOST_TOKENS = 100, 40


def smallest(kind: Cluster, carries: Carries) -> list[Cluster]:
    """All clusters of ``kind``'s machines that carry the load and none of whose pools could be smaller by one.

    Empty where not even the largest carries it. More machines are taken to carry no less.
    """
    if not kind.tokens:
        found = _fewest(lambda count: carries(kind._replace(prompts=count)), _MOST_PROMPTS)
        return [] if found is None else [kind._replace(prompts=found)]
    return list(_frontier(kind, carries))


def _frontier(kind: Cluster, carries: Carries) -> Iterator[Cluster]:
    """From the fewest prompt machines on: the fewest token machines beside each, where that is fewer than before."""
    prompts = _fewest(lambda count: carries(kind._replace(prompts=count, tokens=_MOST_TOKENS)), _MOST_PROMPTS)
    known = _MOST_TOKENS + 1
    while prompts is not None and prompts <= _MOST_PROMPTS and known > 1:
        tokens = known
        while tokens > 1 and carries(kind._replace(prompts=prompts, tokens=tokens - 1)):
            tokens -= 1
        if tokens < known:
            yield kind._replace(prompts=prompts, tokens=tokens)
        known = tokens
        prompts += 1


def _fewest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest count up to ``most`` that is enough, by bisection."""
    if not enough(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
