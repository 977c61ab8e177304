"""What each instance was sent: the approximate prefix index of policies that keep one of their own.

It knows its policy's own routing only; what an instance evicted meanwhile it does not know. So it forgets too: by count
(what an instance can hold at most) and by age.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from policies.api import InstanceView, RequestView

_SPARE = 8


@dataclass
class PrefixIndex:
    """Bounded by ``capacity`` prefix ids per instance, the least recently sent ones (ends of prefixes first) leave."""

    capacity: int
    ttl_s: float | None = None
    """How long an id is remembered after it was last sent; None: until it is pushed out."""
    _holders: dict[int, int] = field(default_factory=dict)
    """Prefix id -> bit mask of the instance ids that were sent it."""
    _sent: dict[int, OrderedDict[int, float]] = field(default_factory=dict)
    """Instance id -> prefix id -> when it was last sent, oldest first; a prefix is younger than its continuations."""

    def size(self, instance_id: int) -> int:
        """How many prefix ids this instance is thought to hold."""
        return len(self._sent.get(instance_id, ()))

    def matches(self, ids: Sequence[int], now_s: float) -> dict[int, int]:
        """Instance id -> how many leading ids it was sent; instances without any are left out."""
        if self.ttl_s is not None:
            self._expire(now_s - self.ttl_s)
        holders = self._holders
        every = holders.get(ids[0], 0) if ids else 0
        depth = self._known(ids) if every else 0
        found: dict[int, int] = {}
        seen = 0
        while depth and seen != every:  # whoever holds a prefix holds its beginnings: the first id's holders are all
            new = holders.get(ids[depth - 1], 0) & ~seen
            seen |= new
            while new:
                lowest = new & -new
                found[lowest.bit_length() - 1] = depth
                new ^= lowest
            depth -= 1
        return found

    def insert(self, ids: Sequence[int], instance_id: int, instances: Sequence[InstanceView], now_s: float) -> None:
        """Note that a prompt with these ids was sent to ``instance_id``, one of the ready ``instances``."""
        sent = self._sent.get(instance_id)
        if sent is None:
            self._drop_absent(instances)
            sent = self._sent[instance_id] = OrderedDict()
        holders, bit = self._holders, 1 << instance_id
        for prefix_id in reversed(ids):
            if prefix_id in sent:
                sent.move_to_end(prefix_id)
            else:
                holders[prefix_id] = holders.get(prefix_id, 0) | bit
            sent[prefix_id] = now_s
        while len(sent) > self.capacity:
            self._release(sent.popitem(last=False)[0], bit)

    def _known(self, ids: Sequence[int]) -> int:
        """How many leading ids anybody holds, by bisection."""
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high + 1) // 2
            if ids[middle - 1] in self._holders:
                low = middle
            else:
                high = middle - 1
        return low

    def _expire(self, before_s: float) -> None:
        for instance_id, sent in self._sent.items():
            while sent and next(iter(sent.values())) < before_s:
                self._release(sent.popitem(last=False)[0], 1 << instance_id)

    def _drop_absent(self, instances: Sequence[InstanceView]) -> None:
        """Forget instances that are not ready, once many more are remembered than are ready."""
        if len(self._sent) < 2 * len(instances) + _SPARE:
            return
        ready = {view.instance_id for view in instances}
        for instance_id in [known for known in self._sent if known not in ready]:
            for prefix_id in self._sent.pop(instance_id):
                self._release(prefix_id, 1 << instance_id)

    def _release(self, prefix_id: int, bit: int) -> None:
        left = self._holders[prefix_id] & ~bit
        if left:
            self._holders[prefix_id] = left
        else:
            del self._holders[prefix_id]


def longest_match(found: dict[int, int], instances: Sequence[InstanceView]) -> tuple[int, list[InstanceView]]:
    """The most leading ids that one of ``instances`` holds, and those that do; (0, []) if none holds any."""
    best, holders = 0, []
    if found:
        for view in instances:
            depth = found.get(view.instance_id, 0)
            if depth > best:
                best, holders = depth, [view]
            elif depth == best and best:
                holders.append(view)
    return best, holders


def hit_tokens(request: RequestView, depth: int) -> int:
    """Prompt tokens that the first ``depth`` prefix ids stand for; one is always left to compute."""
    return min(depth * request.prefix_block_tokens, request.prompt_tokens - 1)


def unbalanced(instances: Sequence[InstanceView], more_than: int, ratio: float) -> bool:
    """Whether the most loaded instance has both over ``more_than`` requests more and ``ratio`` times as many."""
    least, most = inf, 0
    for view in instances:
        load = view.waiting_requests + view.running_requests
        if load < least:
            least = load
        if load > most:
            most = load
    return most - least > more_than and most > ratio * least
