"""Closed loop in virtual time: a turn comes when its client has the answer before it, and has thought about it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from reference_impl.simulator.order import TICKS
from workloads.closed_loop import followers

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation


class Turns:
    """The turns that follow others. Within one moment they come after all that ends in it."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._followers = followers(simulation.trace)
        self._prompts = simulation.trace.prompt_tokens
        self.due = 0
        """How many have a time that has not come yet."""
        self.unanswered = 0
        """How many followed a request that was rejected."""

    def ended(self, request_id: int, at_s: float, answered: bool) -> None:
        """The client has its answer, or knows that there will be none; either way its session goes on."""
        for row, think_s in self._followers.get(request_id, ()):
            self.due += 1
            self.unanswered += not answered
            self._sim.at(at_s + think_s, TICKS, partial(self._arrive, row, at_s + think_s))

    def _arrive(self, row: int, at_s: float) -> None:
        self.due -= 1
        self._sim.active_s = at_s
        self._sim.front_door.arrive(row, at_s, int(self._prompts[row]))
