"""Work sent to each instance over the last minutes, in slots: its memory does not grow with the request rate."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_SLOTS = 36


@dataclass
class Sent:
    """What one instance was sent."""

    prefill_s: float = 0.0
    prompt_tokens: int = 0
    hit_tokens: int = 0

    def add(self, prefill_s: float, prompt_tokens: int, hit_tokens: int) -> None:
        self.prefill_s += prefill_s
        self.prompt_tokens += prompt_tokens
        self.hit_tokens += hit_tokens


@dataclass
class WindowedWork:
    """Sums over the last ``window_s``, which advance by a slot at a time."""

    window_s: float
    _slots: deque[tuple[int, dict[int, Sent]]] = field(default_factory=deque)
    _totals: dict[int, Sent] = field(default_factory=dict)

    def totals(self, now_s: float) -> dict[int, Sent]:
        """Instance id -> its sums; instances that were sent nothing are left out."""
        oldest = self._slot(now_s) - _SLOTS
        if self._slots and self._slots[0][0] <= oldest:
            while self._slots and self._slots[0][0] <= oldest:
                self._slots.popleft()
            self._totals = {}
            for _, slot in self._slots:
                for instance_id, sent in slot.items():
                    total = self._totals.setdefault(instance_id, Sent())
                    total.add(sent.prefill_s, sent.prompt_tokens, sent.hit_tokens)
        return self._totals

    def add(self, instance_id: int, now_s: float, prefill_s: float, prompt_tokens: int, hit_tokens: int) -> None:
        """One more request was sent."""
        slot = self._slot(now_s)
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append((slot, {}))
        for table in (self._slots[-1][1], self._totals):
            table.setdefault(instance_id, Sent()).add(prefill_s, prompt_tokens, hit_tokens)

    def _slot(self, now_s: float) -> int:
        return int(now_s * _SLOTS / self.window_s)
