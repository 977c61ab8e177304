"""A fixed loop of pure Python, the yardstick of a machine's speed at this moment.

Machines change speed from minute to minute; a figure divided by this loop's time, run right beside it, does not. Never
change the loop: figures of different versions are compared through it.
"""

from __future__ import annotations

import heapq
import time

_ROUNDS = 240_000


class _Item:
    __slots__ = ("blocks", "tokens")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.blocks = 0


def reference_cpu_s() -> float:
    """CPU seconds of the loop: heap, dictionary, attribute and tuple work as a discrete-event simulator has it."""
    started = time.process_time()
    checksum = _loop(_ROUNDS)
    spent = time.process_time() - started
    if checksum != _CHECKSUM:
        raise AssertionError(f"the reference loop computed {checksum}, expected {_CHECKSUM}")
    return spent


def _loop(rounds: int) -> int:
    heap: list[tuple[int, int, int]] = [(number * 7919 % 997, 0, number) for number in range(64)]
    heapq.heapify(heap)
    items: dict[int, _Item] = {number: _Item(number) for number in range(64)}
    rows: list[tuple[int, int, int]] = []
    for number in range(64, rounds):
        at, kind, key = heapq.heappop(heap)
        item = items.pop(key)
        item.tokens += at
        item.blocks = -(-item.tokens // 16)
        items[number] = item
        rows.append((at, number, item.blocks))
        heapq.heappush(heap, (at + 1 + number * 7919 % 997, kind ^ 1, number))
        if len(rows) >= 4096:
            rows.clear()
    return sum(item.blocks for item in items.values()) + len(rows)


_CHECKSUM = 14030098745
