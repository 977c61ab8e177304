"""What a policy that observes is told, once the report delay has passed."""

from __future__ import annotations

from collections import deque

from policies.api import Observer, Policy, PolicyEvent
from reference_impl.core.failure import RAISED, policy_failure
from reference_impl.core.moments import time_key


class Hearing:
    """Events on their way to ``policy``; it need not observe at all."""

    __slots__ = ("_delay_s", "_policy", "observer", "under_way")

    def __init__(self, policy: Policy, delay_s: float) -> None:
        self._policy = policy
        self._delay_s = delay_s
        self.observer = policy if isinstance(policy, Observer) else None
        self.under_way: deque[tuple[float, PolicyEvent]] = deque()
        """Events not told yet, each with the time when it becomes known."""

    def notify(self, event: PolicyEvent) -> None:
        """Something happened."""
        if self.observer is not None:
            self.under_way.append((event.at_s + self._delay_s, event))

    def learn(self, now_s: float) -> None:
        """Tell the policy what is known by now. Raises PolicyError where it fails."""
        key = time_key(now_s)
        while self.under_way and self.observer is not None and time_key(self.under_way[0][0]) <= key:
            event = self.under_way.popleft()[1]
            try:
                self.observer.observe(event)
            except RAISED as error:
                raise policy_failure(self._policy, f"observing {event}", error) from error
