"""Workers on a virtual clock whose iterations take what a known cost model says."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from experiments.profiling.shapes import Shape
from reference_impl.engine.api import ForwardBatch, Outcome, SamplingParams
from reference_impl.latency.measured import Coefficients, Measured

TRUTH = Measured(
    Coefficients(0.012, (0, 4, 16, 64), (3e-3, 1.5e-3, 7e-4, 5e-4), 2e-4, 1e-3, 1.2e-7, 1e-6, 9e-6), "tiny"
)


@dataclass
class StubExecutor:
    """Satisfies ``Executor``; its clock is its own, and ``slower`` says how slow the machine is by now."""

    noise: float = 0.0
    slower: Callable[[float], float] = lambda _now_s: 1.0
    now_s: float = 0.0
    batches: list[ForwardBatch] = field(default_factory=list)
    admitted: set[int] = field(default_factory=set)
    _under_way: deque[ForwardBatch] = field(default_factory=deque)
    _luck: random.Random = field(default_factory=lambda: random.Random(0))

    def admit(self, request_id: int, params: SamplingParams) -> None:
        assert params.ignore_eos
        self.admitted.add(request_id)

    def forget(self, request_ids: Sequence[int]) -> None:
        self.admitted -= set(request_ids)

    def launch(self, batch: ForwardBatch) -> None:
        assert {chunk.request_id for chunk in batch.chunks} <= self.admitted
        assert {decode.request_id for decode in batch.decodes} <= self.admitted
        self._under_way.append(batch)

    def collect(self) -> Outcome:
        batch = self._under_way.popleft()
        self.batches.append(batch)
        shape = Shape(
            tuple((len(chunk.tokens), chunk.start) for chunk in batch.chunks),
            tuple(decode.position + 1 for decode in batch.decodes),
        )
        seconds = TRUTH.iteration_s(shape.work) * self.slower(self.now_s) * (1 + self.noise * self._luck.gauss(0, 1))
        start_s, self.now_s = self.now_s, self.now_s + seconds
        return Outcome(batch.ordinal, start_s, self.now_s, ())

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        self._under_way.clear()


@pytest.fixture
def truth() -> Measured:
    """What the workers' iterations take."""
    return TRUTH


@pytest.fixture
def stub() -> type[StubExecutor]:
    """The worker's class."""
    return StubExecutor
