"""The live host of one instance: its state machine and policies on the wall clock, its iterations on executors.

It does no I/O and waits for nothing but executors: whoever holds it says when to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policies.api import PolicyError
from reference_impl.core.instance import Instance
from reference_impl.core.sequence import Sequence as CoreSequence
from reference_impl.core.standstill import gives_way, stay
from reference_impl.engine.api import EngineRequest, Executor, Outcome
from reference_impl.engine.lane_loop import LaneLoop
from reference_impl.engine.live import Live
from reference_impl.engine.news import News
from reference_impl.engine.refusal import refusal
from reference_impl.engine.rows import Flight, build_flight
from reference_impl.engine.step import Failure, Output, Parcel


@dataclass(frozen=True)
class EngineSettings:
    """How iterations are planned, and what the model says."""

    plan_ahead: bool = False
    eos_token_ids: frozenset[int] = frozenset()
    vocab_tokens: int = 1 << 31
    parcel: Parcel | None = None
    """What all parcels of this instance have in common; None: nobody can pull KV from here."""
    early_parcels: bool = False
    """Announce a hand-over when its last chunk is launched."""


class Engine:
    """Serves requests on one instance: plans, launches, collects, applies; gathers what the outside has to know.

    Where a policy raises, :attr:`failure` says so, every request fails, and nothing more is planned.
    """

    def __init__(
        self, instance: Instance, executors: Sequence[Executor], settings: EngineSettings, clock: Callable[[], float]
    ) -> None:
        self.instance = instance
        self.settings = settings
        self.clock = clock
        self.failure: str | None = None
        self.news = News()
        """What has happened and was not told yet; the view has changed where ``instance.changed`` says so."""
        self.lives: dict[int, Live] = {}
        """Every request whose KV is here or will be computed here, those that were handed over included."""
        depth = 2 if settings.plan_ahead else 1
        self.loops = tuple(
            LaneLoop(lane, executor, depth) for lane, executor in zip(instance.lanes, executors, strict=True)
        )
        self._ordinal = 0
        self._held: list[EngineRequest] = []
        """Requests whose namesake has left, but takes part in an iteration under way."""

    # ------------------------------------------------------------------------------------------------ work comes in

    def submit(self, request: EngineRequest) -> None:
        """Queue a request for prefill; one that is here already is not taken twice."""
        request_id = request.view.request_id
        if request_id in self.lives:
            return
        not_here = self._cannot_prefill(request.decode_instance_id)
        never = refusal(request, self.instance.spec, self.settings.vocab_tokens)
        if not_here is not None:
            self.refuse(request_id, not_here, retry=True)
        elif never is not None:
            self.refuse(request_id, never, retry=False)
        elif self._flies(request_id):
            self._held.append(request)
        else:
            limit, generated = request.params.max_tokens, len(request.generated)
            live = Live(request, CoreSequence(request.view, limit, generated))
            live.sequence.decode_instance_id = request.decode_instance_id
            self.instance.enqueue(live.sequence)
            self.welcome(live)

    def _cannot_prefill(self, decode_instance_id: int | None) -> str | None:
        if self.failure is not None:
            return self.failure
        if self.instance.prefill_lane is None:
            return "a decode instance takes handed-over requests only; submit it to one that prefills"
        if decode_instance_id not in (None, self.instance.instance_id) and self.settings.parcel is None:
            return f"no KV can be handed over from this instance's device to instance {decode_instance_id}"
        return None

    def refuse(self, request_id: int, reason: str, *, retry: bool) -> None:
        """Say that a request will not be served here."""
        self.news.failed.append(Failure(request_id, reason, retry))

    def welcome(self, live: Live) -> None:
        """A request's sequence is on the instance: the lanes get to know it."""
        self.lives[live.request_id] = live
        for loop in self.loops:
            loop.executor.admit(live.request_id, live.params)
        self.stir()

    def _flies(self, request_id: int) -> bool:
        """Whether an iteration under way computes something for a request of that id."""
        batches = [flight.batch for loop in self.loops for flight in loop.flights]
        chunks = {row.request_id for batch in batches for row in batch.chunks}
        return request_id in chunks or any(request_id == row.request_id for batch in batches for row in batch.decodes)

    # ----------------------------------------------------------------------------------------------- work goes away

    def cancel(self, request_id: int, reason: str | None) -> bool:
        """Drop a request in whatever state; False where it is not here. ``reason`` None: it goes on elsewhere."""
        return self._leave(request_id, lambda now_s: self.instance.cancel(request_id, now_s, reason))

    def end(self, request_id: int) -> bool:
        """A request is finished as it stands; False where it is not here."""
        return self._leave(request_id, lambda now_s: self.instance.end(request_id, now_s))

    def release(self, request_id: int) -> bool:
        """The KV of a handed-over request was pulled, or nobody wants it; False where there is none."""
        live = self.lives.get(request_id)
        if live is None or not live.parked:
            return False
        self.instance.dismiss(live.sequence)
        self._forget(live)
        self.stir()
        return True

    def _leave(self, request_id: int, how: Callable[[float], bool]) -> bool:
        held = len(self._held)
        self._held = [request for request in self._held if request.view.request_id != request_id]
        live = self.lives.get(request_id)
        if live is None:
            return len(self._held) < held
        known = how(self.clock())
        assert known, f"request {request_id} is live, its instance does not know it"
        self._forget(live)
        self.stir()
        return True

    def _forget(self, live: Live) -> None:
        live.over = True
        del self.lives[live.request_id]
        for loop in self.loops:
            loop.executor.forget((live.request_id,))

    def fail(self, reason: str) -> None:
        """Give up every request that is here; none is to blame, each may go on elsewhere.

        Nothing is undone: the instance is of no use afterwards.
        """
        for request_id in (*self.lives, *(request.view.request_id for request in self._held)):
            self.refuse(request_id, reason, retry=True)
        self.lives.clear()
        self._held.clear()
        self.failure = reason
        self.instance.state = "failed"
        self.instance.changed = True

    # --------------------------------------------------------------------------------------------------- iterations

    def pump(self) -> None:
        """Plan and launch wherever a lane can take another iteration. Raises WorkerDiedError."""
        while self.failure is None:
            loop = next((loop for loop in self.loops if loop.open), None)
            if loop is None:
                return
            self._plan(loop)

    def collect(self, place: int) -> None:
        """Apply the outcome of lane ``place``'s oldest iteration, once it is there. Raises WorkerDiedError."""
        collected = self.loops[place].collect()
        if collected is not None and self.failure is None:
            self._apply(*collected)

    def _plan(self, loop: LaneLoop) -> None:
        now_s = self.clock()
        try:
            iteration = self.instance.plan(loop.lane, now_s)
        except PolicyError as error:
            self.fail(str(error))  # elsewhere, or anew, the policy may not raise
            return
        loop.asks = iteration is not None
        if self.instance.dropped:
            self._take_dropped()
            self.stir()
        if iteration is not None:
            self._ordinal += 1
            flight = build_flight(self.instance, iteration, self.lives, self._ordinal)
            loop.launch(flight, now_s)
            if self.settings.early_parcels and self.instance.decode_lane is None:
                self._announce(iteration.ended)

    def _apply(self, flight: Flight, outcome: Outcome) -> None:
        instance = self.instance
        finished = self._take_tokens(flight, outcome)
        instance.record(flight.iteration, outcome.start_s, outcome.end_s)
        instance.complete(flight.iteration, finished, outcome.end_s, outcome.start_s)
        for request_id in finished:
            self._forget(self.lives[request_id])
        for sequence in instance.handovers:
            self.lives[sequence.request_id].parked = True
            self.news.parcels.append(self._parcel(sequence, early=False))
        instance.handovers.clear()
        held, self._held = self._held, []
        for request in held:
            self.submit(request)
        self.stir()

    def _take_tokens(self, flight: Flight, outcome: Outcome) -> list[int]:
        """Give the tokens to their requests; whom they end."""
        finished = []
        eos = self.settings.eos_token_ids
        outputs = self.news.outputs
        for live, sampled in zip(flight.yields, outcome.tokens, strict=True):
            live.pending -= 1
            if not live.over:
                reason = live.add(sampled.token, eos)
                outputs.append(Output(live.request_id, (sampled,), reason))
                if reason is not None:
                    live.over = True
                    finished.append(live.request_id)
        return finished

    def stir(self) -> None:
        """Something changed: idle lanes are asked anew. A lane that had nothing to plan ahead waits for its outcome."""
        for loop in self.loops:
            if not loop.flights:
                loop.asks = True

    def _take_dropped(self) -> None:
        """Preempted sequences wait here where they can be prefilled here, and leave where not."""
        dropped, self.instance.dropped = self.instance.dropped, []
        if self.instance.prefill_lane is None:
            for sequence in dropped:
                self._forget(self.lives[sequence.request_id])
                self.news.dropped.append(sequence.request_id)

    # ---------------------------------------------------------------------------------------------------- hand-over

    def give_way(self) -> None:
        """The instance stands still for good (``core/standstill.py``): say anew who waits to leave and might stay."""
        sequence = gives_way(self.instance)
        if sequence is not None:
            self.news.parcels.append(self._parcel(sequence, early=False))

    def keep(self, request_id: int) -> bool:
        """Who waits to be handed over from here decodes here; False where there is none."""
        live = self.lives.get(request_id)
        if live is None or not live.parked:
            return False
        live.parked = False
        stay(self.instance, live.sequence, self.clock())
        self.news.adopted.append(request_id)
        self.stir()
        return True

    def _announce(self, sequences: Sequence[CoreSequence]) -> None:
        for sequence in sequences:
            live = self.lives[sequence.request_id]
            if live.generated + 1 < live.params.max_tokens:
                self.news.parcels.append(self._parcel(sequence, early=True))

    def _parcel(self, sequence: CoreSequence, *, early: bool) -> Parcel:
        common = self.settings.parcel or Parcel(0, 0, 0, (), "", "", ())
        return common._replace(
            request_id=sequence.request_id,
            source_instance=self.instance.instance_id,
            tokens=sequence.computed_tokens,
            blocks=tuple(self.instance.name_blocks(sequence)),
            early=early,
            ordinal=self._ordinal if early else 0,
            progress=common.progress if early else "",
        )
