"""Who is told what happened: partition policies, the scaler, what observes, and clients that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from policies.api import PolicyEvent
from reference_impl.core.instance import Instance
from reference_impl.core.iteration import Iteration
from reference_impl.simulator.run import LaneRun

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation


def tell(simulation: Simulation, run: LaneRun, iteration: Iteration, finished: list[int], now_s: float) -> None:
    """Report first tokens and finishes to whoever keeps count, or waits for them."""
    simulation.partitioner.completed(run, iteration, finished, now_s)
    if simulation.scaler.watches:
        simulation.scaler.completed(iteration, finished, now_s)
    instance_id = run.instance.instance_id
    if simulation.executors.observed:
        for sequence in iteration.ended:
            if sequence.tokens_out == 1:
                event = PolicyEvent("first_token", now_s, sequence.request_id, instance_id, 1)
                simulation.executors.notify(event)
    for request_id in finished:
        tell_end(simulation, request_id, now_s, instance_id, simulation.outputs[request_id])


def tell_end(
    simulation: Simulation, request_id: int, now_s: float, instance_id: int | None, tokens: int | None
) -> None:
    """Report that a request finished with so many output tokens; None: it was rejected."""
    if simulation.executors.observed:
        kind: Literal["finished", "rejected"] = "rejected" if tokens is None else "finished"
        simulation.executors.notify(PolicyEvent(kind, now_s, request_id, instance_id, tokens or 0))
    prediction, turns = simulation.front_door.prediction, simulation.turns
    if prediction is not None:
        prediction.ended(now_s, request_id, tokens)
    if turns is not None:
        turns.ended(request_id, now_s, answered=tokens is not None)


def tell_dropped(simulation: Simulation, instance: Instance, now_s: float) -> None:
    """Report preemptions to an observing policy."""
    if simulation.executors.observed:
        for sequence in instance.dropped:
            event = PolicyEvent("preempted", now_s, sequence.request_id, instance.instance_id, sequence.tokens_out)
            simulation.executors.notify(event)
