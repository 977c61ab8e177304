"""Who is told what happened: partition policies, the scaler, and dispatch policies that observe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_impl.core.instance import Instance
from reference_impl.core.iteration import Iteration
from reference_impl.simulator.run import LaneRun

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation


def tell(simulation: Simulation, run: LaneRun, iteration: Iteration, finished: list[int], now_s: float) -> None:
    """Report first tokens and finishes to whoever keeps count."""
    simulation.partitioner.completed(run, iteration, finished, now_s)
    if simulation.scaler.watches:
        simulation.scaler.completed(iteration, finished, now_s)
    if simulation.router.observer is None:
        return
    notify, instance_id = simulation.front_door.notify, run.instance.instance_id
    for sequence in iteration.ended:
        if sequence.tokens_out == 1:
            notify("first_token", now_s, sequence.request_id, instance_id, 1)
    for request_id in finished:
        notify("finished", now_s, request_id, instance_id, simulation.outputs[request_id])


def tell_dropped(simulation: Simulation, instance: Instance, now_s: float) -> None:
    """Report preemptions to an observing policy."""
    if simulation.router.observer is not None:
        for sequence in instance.dropped:
            tokens = sequence.tokens_out
            simulation.front_door.notify("preempted", now_s, sequence.request_id, instance.instance_id, tokens)
