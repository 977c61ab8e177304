"""The simulator: a virtual clock, one event heap, and the very instances and policies of the deployment."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from policies.api import PolicyError
from reference_impl.core.instance import Instance
from reference_impl.core.iteration import Iteration
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.simulator.assembly import build_instances, build_runs, check_scaling
from reference_impl.simulator.frontdoor import FrontDoor
from reference_impl.simulator.handover import Handovers
from reference_impl.simulator.partitioning import Partitioner
from reference_impl.simulator.router import Router
from reference_impl.simulator.run import LaneRun, time_key
from workloads.trace import Trace

ARRIVALS, COMPLETIONS, TICKS = 0, 1, 2
"""At one moment: what arrives, then what ends, then who looks."""
_BEFORE_LANES, _AFTER_LANES = -1, 1 << 60
_PROGRESS_EVERY = 1024
_PATIENCE_TICKS = 1024
"""Ticks without anything else before a policy is taken to leave its requests for ever."""


@dataclass(frozen=True)
class Summary:
    """What a simulation did; metrics come from the event log."""

    requests: int
    finished: int
    rejected: int
    preemptions: int
    runs: int
    """Rows of iterations; each stands for one or more."""
    iterations: int
    makespan_s: float
    """From time 0 to the last event."""


class Simulation:
    """One deployment serving one trace."""

    def __init__(self, spec: ClusterSpec, trace: Trace, log: EventLog, *, fast: bool = True) -> None:
        self.spec = spec
        self.trace = trace
        self.log = log
        self.fast = fast
        self.key = 0
        self.rank = _BEFORE_LANES
        """Where processing stands in the event order: (key, rank)."""
        self.now_s = 0.0
        self.heap: list[tuple[int, int, int, int, Callable[[], None] | LaneRun]] = []
        self.outstanding = 0
        self.finished = self.rejected = self.iterations = self.runs_logged = self._ticket = 0
        self.outputs: list[int] = trace.output_tokens.tolist()
        self.instances = build_instances(spec, trace, log)
        self.runs = build_runs(self.instances)
        check_scaling(spec, trace, self.instances)
        self.router = Router(spec, self.instances)
        self.front_door = FrontDoor(self)
        self.handovers = Handovers(self)
        self.partitioner = Partitioner(self)
        self._reports_on_change = spec.report_period_s is None
        self._idle_ticks = 0

    # ----------------------------------------------------------------------------------------------------- main loop

    def run(self, progress: Callable[[int], None] | None = None) -> Summary:
        """Serve the whole trace.

        Raises PolicyError when a policy decides the impossible or leaves requests waiting for ever.
        """
        collecting = gc.isenabled()
        gc.disable()  # nothing here is cyclic garbage, and the collector would walk every live sequence
        try:
            self._loop(progress)
        finally:
            if collecting:
                gc.enable()
        if self.outstanding:
            self._report_stall()
        return Summary(
            len(self.trace),
            self.finished,
            self.rejected,
            self.preemptions,
            self.runs_logged,
            self.iterations,
            self.now_s,
        )

    def _loop(self, progress: Callable[[int], None] | None) -> None:
        heap = self.heap
        arrive = self.front_door.arrive
        arrivals = self.trace.arrival_s.tolist()
        prompts = self.trace.prompt_tokens.tolist()
        total = len(arrivals)
        keys = [time_key(at_s) for at_s in arrivals]
        self._start_ticks()
        row = 0
        while True:
            if row < total and (not heap or keys[row] <= heap[0][0]):
                self.key, self.rank, self.now_s = keys[row], _BEFORE_LANES, arrivals[row]
                arrive(row, arrivals[row], prompts[row])
                row += 1
                if not row % _PROGRESS_EVERY:
                    self.log.flush_if_full()
                    if progress is not None:
                        progress(row)
                continue
            if not heap:
                return
            key, priority, order, version, action = heappop(heap)
            if priority == COMPLETIONS:
                assert type(action) is LaneRun
                if action.version == version:
                    self.key, self.rank = key, order
                    self._idle_ticks = 0
                    if action.iteration is None:
                        self._begin(action)
                    else:
                        self._complete(action)
            elif row < total or (self.outstanding and not self._only_ticks_left(priority)):
                assert not isinstance(action, LaneRun)
                self.key = key
                self.rank = _BEFORE_LANES if priority == ARRIVALS else _AFTER_LANES
                action()

    def _only_ticks_left(self, priority: int) -> bool:
        """Whether windows and reports go on for ever although no lane will ever run again."""
        self._idle_ticks = self._idle_ticks + 1 if priority == TICKS else 0
        return self._idle_ticks > _PATIENCE_TICKS and all(entry[1] == TICKS for entry in self.heap)

    def at(self, time_s: float, priority: int, action: Callable[[], None]) -> None:
        """Have ``action`` called at ``time_s``; it is dropped once no request is left."""
        self._ticket += 1
        heappush(self.heap, (time_key(time_s), priority, self._ticket, 0, action))

    def _start_ticks(self) -> None:
        self.partitioner.start()
        period_s = self.spec.report_period_s
        if period_s is not None:
            self._report_all(period_s, 0)

    def _report_all(self, period_s: float, count: int) -> None:
        self.now_s = max(self.now_s, count * period_s)
        for instance in self.instances:
            self.settle(instance, count * period_s)
            self.router.report(instance.view(count * period_s))
        self.front_door.retry(self.now_s)
        self.at((count + 1) * period_s, TICKS, lambda: self._report_all(period_s, count + 1))

    # --------------------------------------------------------------------------------------------- state and reports

    def touch(self, instance: Instance) -> None:
        """Have an instance report if its queue or batch changed."""
        if instance.changed:
            instance.changed = False
            if self._reports_on_change:
                if len(instance.lanes) > 1:
                    self.settle(instance, self.now_s)
                self.router.report(instance.view(self.now_s))
            if self.front_door.queued:
                self.front_door.retry(self.now_s)

    def settle(self, instance: Instance, now_s: float) -> None:
        """Reserve the memory of every iteration of ``instance`` that has started by now."""
        for run in self.runs[instance.instance_id]:
            if run.holding:
                run.settle(run.completed_by(now_s, self.key, self.rank))

    def keep_within(self, instance: Instance) -> None:
        """Blocks were taken: runs that planned on them end with the iteration under way (their memory is settled)."""
        for run in self.runs[instance.instance_id]:
            if run.holding and run.outstanding_blocks() > instance.pool.available:
                self.stop_soon(run)

    # ---------------------------------------------------------------------------------------------------- iterations

    def wake(self, run: LaneRun, now_s: float) -> None:
        """New work for a lane: it plans anew after the iteration under way, or if idle, once this moment's arrivals
        are all in."""
        if run.iteration is None:
            if run.idle_until_s is None:
                run.idle_until_s = now_s
                heappush(self.heap, (time_key(now_s), COMPLETIONS, run.order, run.version, run))
        elif run.holding:
            run.settle(run.completed_by(now_s, self.key, self.rank))
            self.stop_soon(run)

    def stop_soon(self, run: LaneRun) -> None:
        """Make the iteration under way the last of its run (its memory must be settled)."""
        version = run.version
        run.stop_after_started()
        if run.version != version:
            self._push(run)

    def start(self, run: LaneRun, now_s: float) -> None:
        """Plan a lane's next iteration, or several equal ones, and set them going."""
        instance = run.instance
        other = run.other
        run.idle_until_s = None
        if other is not None and other.holding:
            other.settle(other.completed_by(now_s, self.key, self.rank))
        iteration = instance.plan(run.lane, now_s)
        if other is not None and other.holding and other.outstanding_blocks() > instance.pool.available:
            self.stop_soon(other)
        if iteration is None:
            run.iteration = None
            return
        count = run.lane.steps.count
        for joined in iteration.joined:
            last = joined.tokens_out_base + self.outputs[joined.request_id] - joined.tokens_out
            heappush(run.ends, (last, joined.request_id, joined.epoch))
        model = instance.spec.latency
        piece = model.piece(iteration.work) if iteration.holds and self.fast else None
        if piece is None:
            run.begin(iteration, now_s, model.iteration_s(iteration.work), 0.0, 1)
        else:
            limit = piece.iterations - 1
            if iteration.decodes:
                limit = min(limit, self._next_end(run) - count)
            extra = instance.repeats(iteration, limit) if limit > 0 else 0
            run.begin(iteration, now_s, piece.first_s, piece.growth_s, 1 + extra)
            if other is not None and extra and not self._fits_beside(run, other):
                run.count, run.holding = 1, False
        if other is None:
            self._push(run)
        else:
            self.partitioner.adopt(run)
            run.rate = self.partitioner.rate(run)
            self._push(run)

    def _begin(self, run: LaneRun) -> None:
        """An idle lane plans: all that arrived at this moment is in its queue."""
        now_s = run.idle_until_s
        assert now_s is not None
        self.now_s = max(self.now_s, now_s)
        self.start(run, now_s)
        if run.other is not None:
            self.sync_rates(run.instance, now_s)
        if self.handovers.waiting or run.instance.returned:
            self.handovers.after(run.instance, now_s)
        self.touch(run.instance)

    def _fits_beside(self, run: LaneRun, other: LaneRun) -> bool:
        """Whether the pool can carry what both lanes have planned, in whatever order they take it."""
        return run.outstanding_blocks() + other.outstanding_blocks() <= run.instance.pool.available

    def _push(self, run: LaneRun) -> None:
        heappush(self.heap, (int(run.end_s(run.count) * 1e9 + 0.5), COMPLETIONS, run.order, run.version, run))

    def _next_end(self, run: LaneRun) -> int:
        """The decode iteration count at which the next sequence of the lane has its last token."""
        ends = run.ends
        while True:
            count, request_id, epoch = ends[0]
            sequence = run.lane.running(request_id)
            if sequence is not None and sequence.epoch == epoch and sequence.steps is not None:
                return count
            heappop(ends)

    def _complete(self, run: LaneRun) -> None:
        iteration = run.iteration
        assert iteration is not None
        if run.count != run.started:
            run.settle(run.count)
        now_s = self.now_s = run.end_s(run.count)
        if run.other is not None and run.other.holding:  # its blocks come out of the cache as it is now
            run.other.settle(run.other.completed_by(now_s, self.key, self.rank))
        run.log_to(self.log, run.count)
        self.runs_logged += 1
        self.iterations += run.count
        finished = self._finished(run, iteration)
        instance = run.instance
        instance.complete(iteration, finished, now_s)
        run.iteration = None
        run.holding = False
        if finished:
            self.finished += len(finished)
            self.outstanding -= len(finished)
        if run.other is not None or self.router.observer is not None:
            self._tell(run, iteration, finished, now_s)
        self.start(run, now_s)
        if run.other is not None:
            self._after_lane(run, run.other, now_s)
        if instance.handovers or instance.returned or self.handovers.waiting:
            self.handovers.after(instance, now_s)
        self.touch(instance)

    def _finished(self, run: LaneRun, iteration: Iteration) -> list[int]:
        """Requests whose last token this iteration brings."""
        finished: list[int] = []
        ends = run.ends
        if iteration.decodes:
            count = run.lane.steps.count
            while ends and ends[0][0] <= count:
                _, request_id, epoch = heappop(ends)
                sequence = run.lane.running(request_id)
                if sequence is not None and sequence.epoch == epoch and sequence.steps is not None:
                    finished.append(request_id)
        if iteration.ended:
            outputs = self.outputs
            finished += [s.request_id for s in iteration.ended if s.tokens_out + 1 >= outputs[s.request_id]]
        return finished

    def _tell(self, run: LaneRun, iteration: Iteration, finished: list[int], now_s: float) -> None:
        """Report first tokens and finishes to whoever keeps count."""
        self.partitioner.completed(run, iteration, finished, now_s)
        if self.router.observer is not None:
            for sequence in iteration.ended:
                if sequence.tokens_out == 1:
                    self.front_door.notify("first_token", now_s, sequence.request_id, run.instance.instance_id, 1)
            for request_id in finished:
                tokens = self.outputs[request_id]
                self.front_door.notify("finished", now_s, request_id, run.instance.instance_id, tokens)

    def _after_lane(self, run: LaneRun, other: LaneRun, now_s: float) -> None:
        """One lane of a semi-PD instance came to a boundary: hand over to the other without a copy, set the rates."""
        if other.iteration is None:
            self.start(other, now_s)
        elif other.holding and other.lane.incoming:
            other.settle(other.completed_by(now_s, self.key, self.rank))
            self.stop_soon(other)
        self.sync_rates(run.instance, now_s)

    def sync_rates(self, instance: Instance, now_s: float) -> None:
        """Re-time both lanes of a semi-PD instance where one has started, stopped or changed its share."""
        for run in self.runs[instance.instance_id]:
            if run.iteration is None:
                continue
            rate = self.partitioner.rate(run)
            if rate != run.rate:
                completed = run.completed_by(now_s, self.key, self.rank)
                run.settle(completed)
                run.retime(self.log, now_s, completed, rate)
                self._push(run)

    # ------------------------------------------------------------------------------------------------------- the end

    @property
    def preemptions(self) -> int:
        """How often a sequence was dropped and queued again."""
        return sum(instance.preemptions for instance in self.instances)

    def _report_stall(self) -> None:
        policies = sorted({lane.batch.name for instance in self.instances for lane in instance.lanes})
        queued = len(self.front_door.queued)
        raise PolicyError(
            f"{self.outstanding} requests wait for ever: {queued} were never dispatched by {self.spec.dispatch.name!r},"
            f" {self.outstanding - queued} were admitted to no iteration by batch policy {', '.join(policies)};"
            " allowed: a policy that serves the head of an idle queue"
        )


def simulate(
    spec: ClusterSpec,
    trace: Trace,
    log: EventLog,
    *,
    fast: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Serve ``trace`` on ``spec`` in virtual time; events go to ``log`` (which the caller closes).

    ``fast=False`` steps every iteration by itself (the same events to 1e-9, far slower).  ``progress`` is told now and
    then how many requests have arrived.  Raises PolicyError.
    """
    return Simulation(spec, trace, log, fast=fast).run(progress)
