"""Iterations computed in this very process, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from reference_impl.engine.api import ForwardBatch, Outcome, SamplingParams


class Runner(Protocol):
    """Computes one iteration after the other, synchronously."""

    def admit(self, request_id: int, params: SamplingParams) -> None: ...
    def forget(self, request_ids: Sequence[int]) -> None: ...
    def run(self, batch: ForwardBatch) -> Outcome: ...


class LocalExecutor:
    """An executor without a process: the forward runs when its outcome is collected."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._orders: deque[ForwardBatch | Callable[[], None]] = deque()
        """In the order given: a request is not forgotten before the iterations launched earlier have run."""

    def admit(self, request_id: int, params: SamplingParams) -> None:
        self._orders.append(partial(self._runner.admit, request_id, params))

    def forget(self, request_ids: Sequence[int]) -> None:
        self._orders.append(partial(self._runner.forget, tuple(request_ids)))

    def launch(self, batch: ForwardBatch) -> None:
        self._orders.append(batch)

    def collect(self) -> Outcome:
        while True:
            order = self._orders.popleft()
            if isinstance(order, ForwardBatch):
                return self._runner.run(order)
            order()

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        self._orders.clear()
