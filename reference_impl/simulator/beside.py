"""The two lanes of a semi-PD instance: they share its blocks and its compute, so each minds what the other plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_impl.core.instance import Instance
from reference_impl.core.iteration import Iteration
from reference_impl.simulator.run import LaneRun

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation


def plan_beside(simulation: Simulation, run: LaneRun, other: LaneRun, now_s: float) -> Iteration | None:
    """Plan on an instance whose ``other`` lane takes blocks too, and may have planned on those that are free."""
    instance = run.instance
    if other.holding:
        other.settle(other.completed_by(now_s, simulation.key, simulation.rank))
    preemptions = instance.preemptions
    iteration = instance.plan(run.lane, now_s)
    if other.holding and other.outstanding_blocks() > instance.pool.available:
        simulation.stop_soon(other)
    if other.iteration is None and instance.preemptions > preemptions:
        simulation.wake(other, now_s)  # it may have the dropped ones to prefill, and their blocks to do so
    return iteration


def fit_beside(run: LaneRun, other: LaneRun) -> bool:
    """Whether the pool can carry what both lanes have planned, in whatever order they take it."""
    return run.outstanding_blocks() + other.outstanding_blocks() <= run.instance.pool.available


def after_lane(simulation: Simulation, run: LaneRun, other: LaneRun, ended: bool, now_s: float) -> None:
    """One lane of a semi-PD instance came to a boundary.

    The other one takes over what was prefilled without a copy, or plans anew after its iteration under way where
    a prefill or a sequence ``ended`` or was preempted. Then both get their rates.
    """
    if other.iteration is None:
        simulation.start(other, now_s)
    elif other.holding and (ended or run.instance.dropped):
        other.settle(other.completed_by(now_s, simulation.key, simulation.rank))
        simulation.stop_soon(other)
    sync_rates(simulation, run.instance, now_s)


def sync_rates(simulation: Simulation, instance: Instance, now_s: float) -> None:
    """Re-time the lanes of an instance where one has started, stopped or changed its share or its speed."""
    for run in simulation.runs[instance.instance_id]:
        if run.iteration is None:
            continue
        rate = simulation.partitioner.rate(run)
        if rate != run.rate:
            completed = run.completed_by(now_s, simulation.key, simulation.rank)
            run.settle(completed)
            run.retime(simulation.log, now_s, completed, rate)
            simulation.push(run)
