"""The simulator: a virtual clock, one event heap, and the very instances and policies of the deployment."""

from __future__ import annotations

import gc
from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from policies.api import PolicyError
from reference_impl.core.instance import Instance
from reference_impl.core.moments import time_key
from reference_impl.core.spec import ClusterSpec
from reference_impl.core.standstill import stands_still
from reference_impl.events import EventLog
from reference_impl.latency.estimate import ModelEstimate
from reference_impl.simulator.asking import Asking
from reference_impl.simulator.assembly import Assembly
from reference_impl.simulator.beside import after_lane, fit_beside, plan_beside
from reference_impl.simulator.executors import JobExecutors
from reference_impl.simulator.fleet import Fleet
from reference_impl.simulator.frontdoor import FrontDoor
from reference_impl.simulator.handover import Handovers
from reference_impl.simulator.order import AFTER_LANES, ARRIVALS, BEFORE_LANES, COMPLETIONS, TICKS
from reference_impl.simulator.partitioning import Partitioner
from reference_impl.simulator.run import LaneRun
from reference_impl.simulator.scaling import Scaler
from reference_impl.simulator.summary import Summary
from reference_impl.simulator.telling import tell, tell_dropped
from reference_impl.simulator.turns import Turns
from workloads.closed_loop import first_turns
from workloads.trace import Trace

_PROGRESS_EVERY = 1024
_FLUSH_EVERY = 8192
"""Runs after which gathered rows are put away."""
_PATIENCE_S = 600.0
"""Simulated seconds of windows and reports alone before a policy is taken to leave its requests for ever."""


class _Timed(NamedTuple):
    """Something to do at a time of its own."""

    time_s: float
    action: Callable[[], None]


class Simulation:
    """One deployment serving one trace."""

    def __init__(
        self, spec: ClusterSpec, trace: Trace, log: EventLog, *, fast: bool = True, closed_loop: bool = False
    ) -> None:
        self.spec = spec
        self.trace = trace
        self.log = log
        self._plans_ahead = spec.plan_ahead
        self.fast = fast and not spec.plan_ahead
        self.key = 0
        self.rank = BEFORE_LANES
        """Where processing stands in the event order: (key, rank)."""
        self.now_s = 0.0
        self.heap: list[tuple[int, int, int, int, LaneRun | _Timed]] = []
        self.outstanding = 0
        self.finished = self.rejected = self.iterations = self.runs_logged = self._ticket = 0
        self.outputs: list[int] = trace.output_tokens.tolist()
        assembly = Assembly(spec, trace, log)
        self.instances = [assembly.instance(i, instance) for i, instance in enumerate(spec.instances)]
        """By id: the present one, or the last that there was."""
        self.runs = {instance.instance_id: assembly.runs(instance) for instance in self.instances}
        estimate = ModelEstimate(spec.instances[0].latency)
        views = [instance.view(0.0) for instance in self.instances]
        self.executors = JobExecutors(spec, len(trace), estimate, views)
        self.fleet = Fleet(self, assembly)
        self.scaler = Scaler(self, estimate)
        self.front_door = FrontDoor(self)
        self.turns = Turns(self) if closed_loop else None
        self.handovers = Handovers(self)
        self.partitioner = Partitioner(self)
        self._reports_on_change = spec.report_period_s is None
        self.asking = Asking(self)
        learns = self.front_door.prediction is not None and self.front_door.prediction.observed
        self._tells = self.executors.observed or learns or closed_loop or self.scaler.watches
        self.active_s = 0.0
        """When a lane last came to a boundary, or a request arrived."""

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
            self.turns.unanswered if self.turns is not None else 0,
        )

    def _loop(self, progress: Callable[[int], None] | None) -> None:
        heap = self.heap
        arrive = self.front_door.arrive
        asking = self.asking
        turns = self.turns
        timed = np.arange(len(self.trace)) if turns is None else first_turns(self.trace)
        rows = timed.tolist()
        arrivals = self.trace.arrival_s[timed].tolist()
        prompts = self.trace.prompt_tokens[timed].tolist()
        total = len(rows)
        keys = [time_key(at_s) for at_s in arrivals]
        self._start_ticks()
        place = 0
        while True:
            if asking.due:
                asking.ask(self.now_s)
            if place < total and (not heap or keys[place] <= heap[0][0]):
                self.key, self.rank, self.now_s = keys[place], BEFORE_LANES, arrivals[place]
                arrive(rows[place], arrivals[place], prompts[place])
                self.active_s = self.now_s
                place += 1
                if not place % _PROGRESS_EVERY:
                    self.log.flush_if_full()
                    if progress is not None:
                        progress(place)
                continue
            if not heap:
                return
            key, priority, order, version, due = heappop(heap)
            if type(due) is LaneRun:
                if due.version == version:
                    self.key, self.rank = key, order
                    if due.iteration is None:
                        self._begin(due)
                    else:
                        self._complete(due)
                    self.active_s = self.now_s
            elif place < total or self._goes_on(key, priority):
                assert type(due) is _Timed
                self.key = key
                self.rank = BEFORE_LANES if priority == ARRIVALS else AFTER_LANES
                self.now_s = max(self.now_s, due.time_s)
                due.action()

    def _goes_on(self, key: int, priority: int) -> bool:
        """Whether there is more to come after the last arrival that has a time of its own."""
        if self.turns is not None and self.turns.due:
            return True
        return self.outstanding > 0 and not (priority == TICKS and self._only_ticks_left(key))

    def _only_ticks_left(self, key: int) -> bool:
        """Whether windows and reports go on for ever although no lane will ever run again."""
        return key > (self.active_s + _PATIENCE_S) * 1e9 and all(entry[1] == TICKS for entry in self.heap)

    def at(self, time_s: float, priority: int, action: Callable[[], None]) -> None:
        """Have ``action`` called at ``time_s``; it is dropped once no request is left."""
        self._ticket += 1
        heappush(self.heap, (time_key(time_s), priority, self._ticket, 0, _Timed(time_s, action)))

    def _start_ticks(self) -> None:
        for instance in self.instances:
            self.partitioner.open(instance, 0.0)
        self.scaler.start()
        period_s = self.spec.report_period_s
        if period_s is not None:
            self._report_all(period_s, 0)

    def _report_all(self, period_s: float, count: int) -> None:
        for instance in self.instances:
            if instance.state == "ready":
                self.settle(instance, count * period_s)
                self.executors.report(instance.view(count * period_s))
        if self.executors.waiting:
            self.asking.reported()
        self.at((count + 1) * period_s, TICKS, lambda: self._report_all(period_s, count + 1))

    # --------------------------------------------------------------------------------------------- state and reports

    def touch(self, instance: Instance) -> None:
        """Have an instance report if its queue or batch changed."""
        if instance.changed:
            instance.changed = False
            if instance.state == "draining":
                self.fleet.drained(instance, self.now_s)
            elif self._reports_on_change:
                if len(instance.lanes) > 1:
                    self.settle(instance, self.now_s)
                self.executors.report(instance.view(self.now_s))
                if self.executors.waiting:
                    self.asking.reported()

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
            self.push(run)

    def start(self, run: LaneRun, now_s: float) -> None:
        """Plan a lane's next iteration, or several equal ones, unless that was done ahead, and set them going."""
        other = run.other
        run.idle_until_s = None
        if other is None:
            iteration = run.next or run.instance.plan(run.lane, now_s)
        else:
            iteration = run.next or plan_beside(self, run, other, now_s)
        if iteration is None:
            run.iteration = None
            return
        if iteration.joined and not self._plans_ahead:
            run.note_ends(iteration.joined, self.outputs)
        model = run.latency
        piece = model.piece(iteration.work) if iteration.holds and self.fast and run.stages is None else None
        if piece is not None:
            run.begin(iteration, now_s, piece.first_s, piece.growth_s, 1 + run.extra(iteration, piece.iterations - 1))
        elif run.stages is None:
            run.begin(iteration, now_s, model.iteration_s(iteration.work), 0.0, 1)
        else:
            leaves_s = run.stages.enter(now_s, model.iteration_s(iteration.work))
            run.begin(iteration, now_s, leaves_s - now_s, 0.0, 1)
        if other is not None:
            if run.holding and not fit_beside(run, other):
                run.count, run.holding = 1, False
            self.partitioner.adopt(run)
            run.rate = self.partitioner.rate(run)
        self.push(run)
        if self._plans_ahead:
            run.next = run.instance.plan(run.lane, now_s)

    def _begin(self, run: LaneRun) -> None:
        """An idle lane plans: all that arrived at this moment is in its queue."""
        now_s = run.idle_until_s
        if now_s is None:
            return  # it has been asked meanwhile, at this very moment
        self.now_s = max(self.now_s, now_s)
        self.start(run, now_s)
        if run.other is not None:
            after_lane(self, run, run.other, False, now_s)
        self._after_boundary(run.instance, now_s)

    def push(self, run: LaneRun) -> None:
        """Put the end of what a lane has planned into the event order."""
        run.due_s = run.end_s(run.count)
        heappush(self.heap, (time_key(run.due_s), COMPLETIONS, run.order, run.version, run))

    def _complete(self, run: LaneRun) -> None:
        iteration = run.iteration
        assert iteration is not None
        if run.count != run.started:
            run.settle(run.count)
        other = run.other
        started_s = run.last_start_s() if run.lane.incoming else None  # only who joins cares
        now_s = self.now_s = run.due_s
        if other is not None and other.holding:  # its blocks come out of the cache as it is now
            other.settle(other.completed_by(now_s, self.key, self.rank))
        run.log_to(self.log, run.count, now_s)
        self.runs_logged += 1
        self.iterations += run.count
        finished = run.finished(self.outputs)
        instance = run.instance
        instance.complete(iteration, finished, now_s, started_s)
        run.iteration = None
        run.holding = False
        if finished:
            self.finished += len(finished)
            self.outstanding -= len(finished)
        if other is not None or self._tells:
            tell(self, run, iteration, finished, now_s)
        self.start(run, now_s)
        if other is not None:
            after_lane(self, run, other, bool(finished or iteration.ended), now_s)
        self._after_boundary(instance, now_s)
        if not self.runs_logged % _FLUSH_EVERY:
            self.log.flush_if_full()

    def _after_boundary(self, instance: Instance, now_s: float) -> None:
        """An instance reports, and what it cannot go on with itself goes where it can."""
        changed = instance.changed
        self.touch(instance)
        if instance.handovers:
            self.handovers.collect(instance)
        if instance.dropped:
            tell_dropped(self, instance, now_s)
            dropped, instance.dropped = instance.dropped, []
            if instance.prefill_lane is None:
                for sequence in dropped:
                    self.front_door.submit(sequence, now_s)
        if instance.inbound and (changed or stands_still(instance)):
            self.handovers.accept(instance, now_s)

    # ------------------------------------------------------------------------------------------------------- the end

    @property
    def preemptions(self) -> int:
        """How often a sequence was dropped and queued again."""
        return sum(instance.preemptions for instance in self.instances)

    def _report_stall(self) -> None:
        policies = sorted({lane.batch.name for instance in self.instances for lane in instance.lanes})
        queued = sum(len(executor.queued) for executor in self.executors)
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
    closed_loop: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Serve ``trace`` on ``spec`` in virtual time; events go to ``log`` (which the caller closes).

    ``fast=False`` steps every iteration by itself (the same events to 1e-9, far slower), and so does ``plan_ahead`` of
    the deployment.  ``closed_loop``: turns of sessions wait for the answers before them (:mod:`workloads.closed_loop`).
    ``progress`` is told now and then how many requests have arrived, turns that waited not counted.  Raises
    PolicyError, and TraceError where the trace does not fit a closed loop.
    """
    return Simulation(spec, trace, log, fast=fast, closed_loop=closed_loop).run(progress)
