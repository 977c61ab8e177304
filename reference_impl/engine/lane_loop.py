"""One lane's iterations under way: launched in order, at most two, collected in order."""

from __future__ import annotations

from collections import deque

from reference_impl.core.lane import Lane
from reference_impl.engine.api import Executor, Outcome, WorkerDiedError
from reference_impl.engine.rows import Flight


class LaneLoop:
    """A lane of an instance and the executor that computes its iterations."""

    def __init__(self, lane: Lane, executor: Executor, depth: int) -> None:
        self.lane = lane
        self.executor = executor
        self.flights: deque[Flight] = deque()
        self.asks = True
        """Whether its batch policy may have something to say: not once it had nothing to run, until something
        changes."""
        self.since_s = 0.0
        """When the oldest iteration under way was launched, or came to be the oldest."""
        self._depth = depth

    @property
    def open(self) -> bool:
        """Whether another iteration can be planned."""
        return self.asks and len(self.flights) < self._depth

    def launch(self, flight: Flight, now_s: float) -> None:
        """Send an iteration off. Raises WorkerDiedError."""
        if not self.flights:
            self.since_s = now_s
        self.flights.append(flight)
        self.executor.launch(flight.batch)

    def collect(self) -> tuple[Flight, Outcome] | None:
        """The oldest iteration and its outcome; None for one that came before. Raises WorkerDiedError."""
        outcome = self.executor.collect()
        if not self.flights or outcome.ordinal < self.flights[0].batch.ordinal:
            return None
        flight = self.flights[0]
        expected = [live.request_id for live in flight.yields]
        if outcome.ordinal > flight.batch.ordinal or [token.request_id for token in outcome.tokens] != expected:
            raise WorkerDiedError(
                f"the {self.lane.kind} worker answered iteration {outcome.ordinal} with {len(outcome.tokens)} tokens;"
                f" allowed: iteration {flight.batch.ordinal} with one for each of {expected}; it has to be replaced"
            )
        self.flights.popleft()
        self.since_s = outcome.end_s
        return flight, outcome
