"""Running the shapes: all workers of the fleet at once, every round in another order, so that a machine that changes
speed changes all shapes alike, and each worker is measured with its neighbours at work.

As in traffic, decodes come in runs, of which the first iteration still suffers from what was before it; iterations with
prompts come one by one, of sizes that were not there before.
"""

from __future__ import annotations

import random
import select
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from experiments.profiling.batches import BatchMaker, admit_all
from experiments.profiling.shapes import Shape
from reference_impl.engine.api import Executor

_WARM_UP = 5
_SEED = 20_240_613
_SPREAD = 29
_DECODE_STEPS, _DROPPED = 4, 1


class Visit(NamedTuple):
    """One worker comes to one shape."""

    round: int
    worker: int
    shape: int
    """Place in the list of shapes."""


class Timing(NamedTuple):
    """One iteration as its worker timed it."""

    round: int
    worker: int
    shape: int
    step: int
    """Which iteration of the visit; the first ones of a run of decodes are not there."""
    seconds: float

    def content(self, shapes: Sequence[Shape]) -> Shape:
        """What it computed: about its shape."""
        return shapes[self.shape].varied(_SPREAD * self.round + 7 * self.worker + self.step)


@dataclass(frozen=True)
class Pool:
    """The KV memory of one worker, as far as block tables go."""

    kv_blocks: int
    block_tokens: int


class _Lane:
    """One worker with the iterations that it still has to run."""

    def __init__(self, number: int, executor: Executor, pool: Pool, shapes: Sequence[Shape]) -> None:
        self.number = number
        self.executor = executor
        self._shapes = shapes
        self._maker = BatchMaker(pool.kv_blocks, pool.block_tokens)
        self._todo: Iterator[tuple[Timing, bool]] = iter(())
        self._running: tuple[Timing, bool] | None = None
        admit_all(executor, max(len(shape.chunks) + len(shape.contexts) for shape in shapes))

    def begin(self, visits: Sequence[Visit]) -> bool:
        """Queue visits after a few that do not count; False where there is nothing to do."""
        warm_up = random.Random(_SEED + self.number).choices(visits, k=_WARM_UP) if visits else []
        cold = ((timing, False) for visit in warm_up for timing, _ in self._steps(visit))
        self._todo = chain(cold, (step for visit in visits for step in self._steps(visit)))
        return self.launch()

    def launch(self) -> bool:
        """Start the next iteration; False where there is none."""
        self._running = next(self._todo, None)
        if self._running is None:
            return False
        self.executor.launch(self._maker.make(self._running[0].content(self._shapes)))
        return True

    def collect(self) -> Timing | None:
        """The iteration under way; None for one that does not count."""
        outcome = self.executor.collect()
        assert self._running is not None
        timing, counts = self._running
        return timing._replace(seconds=outcome.end_s - outcome.start_s) if counts else None

    def _steps(self, visit: Visit) -> Iterator[tuple[Timing, bool]]:
        """Its iterations, and whether each counts."""
        decodes = not self._shapes[visit.shape].chunks
        for step in range(_DECODE_STEPS if decodes else 1):
            yield Timing(*visit, step, 0.0), step >= _DROPPED or not decodes


def measure(
    executors: Sequence[Executor],
    pool: Pool,
    shapes: Sequence[Shape],
    rounds: int,
    done: Sequence[Timing] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Timing]:
    """Yield the timings of every shape, worker and round that have none in ``done``, as they come.

    Raises WorkerDiedError.
    """
    known = {Visit(*timing[:3]) for timing in done}
    total = rounds * len(executors) * len(shapes)
    lanes = [_Lane(number, executor, pool, shapes) for number, executor in enumerate(executors)]
    busy = [lane for lane in lanes if lane.begin(_visits(lane.number, len(shapes), rounds, known))]
    while busy:
        for lane in _ready(busy):
            timing = lane.collect()
            if not lane.launch():
                busy.remove(lane)
            if timing is not None:
                known.add(Visit(*timing[:3]))
                if progress is not None:
                    progress(len(known), total)
                yield timing


def _visits(worker: int, shapes: int, rounds: int, known: set[Visit]) -> list[Visit]:
    """Every round in an order of its own, and each worker in another one."""
    found = []
    for round_ in range(rounds):
        order = random.Random(_SEED + 1000 * worker + round_).sample(range(shapes), shapes)
        found += [visit for shape in order if (visit := Visit(round_, worker, shape)) not in known]
    return found


def _ready(lanes: Sequence[_Lane]) -> list[_Lane]:
    """Lanes whose outcome is there; those without a descriptor never wait long."""
    numbers = [lane.executor.fileno() for lane in lanes]
    waiting = [number for number in numbers if number is not None]
    readable = select.select(waiting, [], [])[0] if len(waiting) == len(numbers) else []
    return [lane for lane, number in zip(lanes, numbers, strict=True) if number is None or number in readable]
