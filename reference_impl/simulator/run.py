"""Iterations on one lane in virtual time: closed-form runs and rate-based progress.

A run is k iterations of one plan.  Iteration j needs ``first + (j-1) growth`` seconds of whole-device work, so the
first j of them need ``W(j) = j first + growth j(j-1)/2``.  A lane progresses at ``rate`` work seconds per second; when
the rate changes, what remains is re-timed from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import sqrt
from typing import TYPE_CHECKING

from reference_impl.core.iteration import Iteration
from reference_impl.core.lane import Lane
from reference_impl.core.moments import time_key

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance
    from reference_impl.core.sequence import Sequence as Request
    from reference_impl.events import EventLog
    from reference_impl.simulator.stages import Stages


class LaneRun:
    """What a lane executes now, and when each of its iterations ends."""

    __slots__ = (
        "busy_s",
        "count",
        "done",
        "due_s",
        "ends",
        "first_s",
        "from_s",
        "from_work_s",
        "growth_s",
        "holding",
        "idle_until_s",
        "instance",
        "iteration",
        "lane",
        "latency",
        "next",
        "order",
        "other",
        "pct",
        "rate",
        "row_start_s",
        "speed",
        "stages",
        "started",
        "version",
    )

    def __init__(self, lane: Lane, order: int, pct: int, speed: float = 1.0) -> None:
        self.lane = lane
        self.instance: Instance = lane.instance
        self.latency = lane.instance.spec.latency
        self.order = order
        """Place of this lane among all lanes: breaks ties between completions of one moment."""
        self.pct = pct
        self.stages: Stages | None = None
        """Of the pipeline whose virtual engine this lane's instance is."""
        self.other: LaneRun | None = None
        self.iteration: Iteration | None = None
        self.next: Iteration | None = None
        """The one after it, where that was planned ahead."""
        self.version = 0
        """Tells the completion that is due from those that were overtaken."""
        self.ends: list[tuple[int, int, int]] = []
        """Heap of (decode iteration count at the last token, request, epoch)."""
        self.speed = speed
        """Of its instance: 1, or less where that has become slow."""
        self.rate = speed
        self.busy_s = 0.0
        self.holding = False
        """Whether more than one iteration is planned, so that an arrival cuts the run short."""
        self.count = self.started = self.done = 0
        """Iterations planned, started (their memory is reserved), and logged."""
        self.row_start_s = 0.0
        self.due_s = 0.0
        """When the last of the planned iterations ends, as noted when that was put into the event order."""
        self.idle_until_s: float | None = None
        """When an idle lane will plan, if it is about to."""

    def begin(self, iteration: Iteration, now_s: float, first_s: float, growth_s: float, count: int) -> None:
        """Start ``count`` iterations; the first one's memory is reserved, that of the others is not yet."""
        self.iteration = iteration
        self.first_s = first_s
        self.growth_s = growth_s
        self.count = count
        self.started = 1
        self.done = 0
        self.from_s = self.row_start_s = now_s
        self.from_work_s = 0.0
        self.holding = count > 1
        self.version += 1

    def extra(self, iteration: Iteration, limit: int) -> int:
        """How many times more, at most ``limit``, a plan that holds can run before it must be asked for anew."""
        if iteration.decodes:
            until_end = self.next_end() - iteration.step
            limit = until_end if until_end < limit else limit
        return self.instance.repeats(iteration, limit) if limit > 0 else 0

    def note_ends(self, joined: Sequence[Request], outputs: Sequence[int]) -> None:
        """Note where sequences that have joined the decodes will have their last token."""
        for request in joined:
            last = request.tokens_out_base + outputs[request.request_id] - request.tokens_out
            heappush(self.ends, (last, request.request_id, request.epoch))

    def work_s(self, iterations: int) -> float:
        """Whole-device seconds that the first ``iterations`` of the run need."""
        return iterations * self.first_s + self.growth_s * (iterations * (iterations - 1) * 0.5)

    def end_s(self, iterations: int) -> float:
        """When iteration number ``iterations`` ends, at the present rate."""
        work = iterations * self.first_s + self.growth_s * (iterations * (iterations - 1) * 0.5)
        return self.from_s + (work - self.from_work_s) / self.rate

    def completed_by(self, now_s: float, key: int, rank: int) -> int:
        """Iterations whose end lies before the place (key, rank) in the event order (``rank``: a lane's order)."""
        guess = self._iterations_at(now_s)
        guess = max(self.done, min(guess, self.count))
        while guess > self.done and not self._before(guess, key, rank):
            guess -= 1
        while guess < self.count and self._before(guess + 1, key, rank):
            guess += 1
        return guess

    def _before(self, iterations: int, key: int, rank: int) -> bool:
        end = time_key(self.end_s(iterations))
        return end < key or (end == key and self.order < rank)

    def _iterations_at(self, now_s: float) -> int:
        """Roughly how many iterations are complete at ``now_s`` (the callers correct the rounding)."""
        work = self.from_work_s + (now_s - self.from_s) * self.rate
        growth = self.growth_s
        linear = self.first_s - 0.5 * growth
        if abs(growth) * self.count < 1e-9 * self.first_s:
            return int(work / self.first_s)
        return int((sqrt(max(linear * linear + 2.0 * growth * work, 0.0)) - linear) / growth)

    def settle(self, completed: int) -> None:
        """Reserve the memory of every iteration that has started, given how many are complete."""
        started = min(completed + 1, self.count)
        if started > self.started and self.iteration is not None:
            self.instance.repeat(self.iteration, started - self.started)
            self.started = started

    def stop_after_started(self) -> None:
        """The iteration under way becomes the run's last."""
        self.holding = False
        if self.count != self.started:
            self.count = self.started
            self.version += 1

    def abandon(self) -> None:
        """Nothing comes of what is planned or under way, nor of events that are due."""
        self.iteration = self.next = None
        self.idle_until_s = None
        self.holding = False
        self.version += 1

    def outstanding_blocks(self) -> int:
        """KV blocks that the planned iterations which have not started will take."""
        iteration = self.iteration
        if iteration is None or self.count == self.started:
            return 0
        ahead = self.count - self.started
        blocks = self.lane.blocks_for(ahead) if iteration.decodes else 0
        return blocks + sum(self.lane.blocks_needed(sequence, ahead * n) for sequence, n in iteration.chunks)

    def next_end(self) -> int:
        """The decode iteration count at which the next sequence of the lane has its last token."""
        while True:
            count, request_id, epoch = self.ends[0]
            if self._decodes_since(request_id, epoch):
                return count
            heappop(self.ends)

    def finished(self, outputs: Sequence[int]) -> list[int]:
        """Requests whose last token the run's iterations bring; ``outputs``: output tokens by request."""
        iteration = self.iteration
        assert iteration is not None
        if iteration.foresight is not None:
            return list(iteration.foresight.due)
        finished: list[int] = []
        ends = self.ends
        if iteration.decodes:
            count = self.lane.steps.count
            while ends and ends[0][0] <= count:
                _, request_id, epoch = heappop(ends)
                if self._decodes_since(request_id, epoch):
                    finished.append(request_id)
        if iteration.ended:
            finished += [s.request_id for s in iteration.ended if s.tokens_out + 1 >= outputs[s.request_id]]
        return finished

    def _decodes_since(self, request_id: int, epoch: int) -> bool:
        """Whether a note about a decode still holds: it has not left the batch since."""
        sequence = self.lane.running(request_id)
        return sequence is not None and sequence.epoch == epoch and sequence.steps is not None

    def last_start_s(self) -> float:
        """When the last iteration of the run began; all of them have ended."""
        return self.row_start_s if self.count - 1 == self.done else self.end_s(self.count - 1)

    def log_to(self, log: EventLog, iterations: int, end_s: float) -> None:
        """Write the row of the iterations up to ``iterations``, which ends at ``end_s``, that are not logged yet."""
        iteration = self.iteration
        done = self.done
        if iteration is None or iterations == done:
            return
        fresh = iterations - done
        if fresh == 1:
            first_end, step, growth = end_s, 0.0, 0.0
        else:
            first_end = self.end_s(done + 1)
            step = (self.first_s + self.growth_s * (done + 1)) / self.rate
            growth = self.growth_s / self.rate
        lane = self.lane
        start = self.row_start_s
        self.busy_s += end_s - start
        log.run.append(
            (
                end_s,
                lane.instance_id,
                lane.kind,
                fresh * iteration.prefill_tokens,
                iteration.decodes,
                start,
                fresh,
                first_end,
                step,
                growth,
                lane.pool.used,
            )
        )
        self.done = iterations
        self.row_start_s = end_s

    def retime(self, log: EventLog, now_s: float, completed: int, rate: float) -> None:
        """Go on at another rate from ``now_s`` on; ``completed`` iterations have ended by then."""
        if completed > self.done:
            self.log_to(log, completed, self.end_s(completed))
        work = self.from_work_s + (now_s - self.from_s) * self.rate
        self.from_work_s = min(max(work, self.work_s(completed)), self.work_s(completed + 1))
        self.from_s = now_s
        self.rate = rate
        self.version += 1
