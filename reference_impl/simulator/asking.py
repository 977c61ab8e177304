"""When the dispatch policy is asked again about what it left queued: one mechanism for requests and hand-overs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_impl.simulator.order import TICKS

if TYPE_CHECKING:
    from reference_impl.simulator.simulation import Simulation


class Asking:
    """Offers what is queued whenever the policy may know something new: a report that has become known.

    Nothing is offered in the middle of an event: :attr:`due` is set, and the main loop asks once the event is done.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._alarm_set = False
        self.due = False

    def soon(self) -> None:
        """Something new is queued."""
        self.due = True

    def reported(self) -> None:
        """Reports were made while something was queued: it is offered again when they are known."""
        if self._sim.spec.report_delay_s:
            self.await_report()
        else:
            self.due = True

    def await_report(self) -> None:
        """Something stays queued: ask again when the next report that is under way becomes known."""
        at_s = self._sim.executors.next_report_s
        if at_s is not None and not self._alarm_set:
            self._alarm_set = True
            self._sim.at(at_s, TICKS, self._alarm)

    def ask(self, now_s: float) -> None:
        """Offer what is queued, again and again as long as that changes something."""
        while self.due:
            self.due = False
            self._sim.handovers.offer(now_s)
            self._sim.front_door.offer(now_s)
        if self._sim.executors.waiting:
            self.await_report()

    def _alarm(self) -> None:
        self._alarm_set = False
        self.due = True
