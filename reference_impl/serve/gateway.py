"""The deployment as a front door's HTTP app sees it: a job for each request, over connections to the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from policies.api import InstanceView, LengthPredictor, Phase, PolicyEvent, RequestView
from reference_impl.core.prediction import Prediction
from reference_impl.core.router import PHASE_ROLES
from reference_impl.core.spec import InstanceSpec, Slo
from reference_impl.core.tally import NONE, total
from reference_impl.engine.api import EngineRequest, FinishReason, SampledToken
from reference_impl.engine.prefix_ids import prefix_ids
from reference_impl.serve.http.delta_stream import DeltaStream
from reference_impl.serve.http.errors import ServingError, invalid
from reference_impl.serve.http.gateway import GatewayStats, GenerateRequest, Health
from reference_impl.serve.job import Job, Note
from reference_impl.serve.messages import Answer, Ask, Beat, Members, News, Progress, Withdraw
from reference_impl.serve.peers import Callbacks, Peers
from reference_impl.serve.prediction import predicted_tokens
from reference_impl.serve.registry import Key
from reference_impl.serve.request_limits import RequestLimits
from reference_impl.serve.spool import LogRows
from reference_impl.serve.ticket import RowBuffer, Ticket

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatewaySettings:
    """What a front door knows of the deployment."""

    instances: tuple[InstanceSpec, ...]
    """As configured: which requests can run at all."""
    prefix_block_tokens: int
    front_doors: int = 1
    max_failures: int = 3
    absence_s: float = 30.0
    """How long a request waits while there is no job executor."""
    slo: Slo | None = None
    report_delay_s: float = 0.0
    """Until its predictor knows how long an answer was."""


class LiveGateway:
    """See ``reference_impl.serve.http.gateway.Gateway``; it also carries out what its jobs want done."""

    def __init__(
        self,
        settings: GatewaySettings,
        predictor: LengthPredictor | None,
        log: Callable[[LogRows], None],
        clock: Callable[[], float],
    ) -> None:
        self.now_s = clock
        self._settings = settings
        self._limits = RequestLimits(settings.instances)
        self._prediction = Prediction(predictor, settings.report_delay_s) if predictor is not None else None
        self._rows = RowBuffer(log, lambda call: asyncio.get_running_loop().call_soon(call))
        self._tickets: dict[int, Ticket] = {}
        self._peers: Peers | None = None
        self._ids = count()
        self._next_id = 0
        self._turn = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._members = Members(())
        self._views: dict[int, InstanceView] = {}
        self._counts = NONE
        self._redispatched = 0

    # -------------------------------------------------------------------------------------------------------- its life

    def open(self, make_peers: Callable[[Callbacks], Peers]) -> None:
        """Connect to who is there."""
        self._peers = make_peers(Callbacks(self._hear, self._lose, self._meet))

    def number_from(self, first_request_id: int) -> None:
        """Ids start here, in steps of the number of front doors."""
        self._next_id = first_request_id
        self._ids = count(first_request_id, self._settings.front_doors)

    async def drain(self, seconds: float) -> None:
        """Accept nothing new; what still runs after ``seconds`` gets an error."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._all_over()
        except TimeoutError:
            for ticket in list(self._tickets.values()):
                ticket.job.cancel("the deployment was shut down")
                ticket.stream.fail(_shutting_down())
                self._over(ticket)
        self._rows.flush()

    def close(self, reason: str) -> None:
        """Leave everybody."""
        self._draining = True
        if self._peers is not None:
            self._peers.close(reason)

    def members(self, members: Members) -> None:
        """What the cluster manager says is there."""
        self._members = members
        if self._peers is not None:
            self._peers.update(members.members)

    def beat(self) -> Beat:
        """A sign of life."""
        return Beat(
            "draining" if self._draining else "ready",
            next_request_id=self._next_id,
            counts=self._counts,
            in_flight=len(self._tickets),
        )

    # ------------------------------------------------------------------------------------------------------ for the app

    def generate(self, request: GenerateRequest) -> DeltaStream:
        """Accept a request. Raises ServingError."""
        if self._draining or self._peers is None:
            raise _shutting_down()
        reason = self._limits.refusal(len(request.prompt), request.params.max_tokens)
        if reason is not None:
            raise invalid(reason, code="context_length_exceeded")
        request_id = next(self._ids)
        self._next_id = request_id + self._settings.front_doors
        self._counts = self._counts._replace(arrived=self._counts.arrived + 1)
        view = self._view(request_id, request)
        self._rows.add("arrive", (view.arrival_s, request_id, view.prompt_tokens))
        job = Job(EngineRequest(view, request.prompt, request.params), self, self._settings.max_failures)
        stream = DeltaStream(request_id, partial(self._closed, request_id))
        stream.tasks = job.tasks
        self._tickets[request_id] = Ticket(job, stream)
        job.start()
        return stream

    async def health(self) -> Health:
        """Whether every phase has an instance that is ready."""
        instances = [member for member in self._members.members if member.kind == "task_executor"]
        connected = set(self._peers.connected("task_executor")) if self._peers is not None else set()
        ready = [member for member in instances if member.state == "ready" and member.seat in connected]
        lacking = self._lacking({member.role for member in ready})
        configured = len(self._settings.instances)
        return Health(not lacking, lacking, len(ready), max(configured, len(instances)))

    def stats(self) -> GatewayStats:
        """For ``/metrics``."""
        queued = sum(ticket.job.asked is not None for ticket in self._tickets.values())
        return GatewayStats(tuple(self._views.values()), queued, self._redispatched, self._members.log_error)

    def _lacking(self, roles: set[Any]) -> str:
        if self._draining:
            return "shutting down"
        if self._peers is None or not self._peers.connected("job_executor"):
            return "no job executor is there"
        needed: list[Phase] = ["prefill"]
        if any(spec.role == "prefill" for spec in self._settings.instances) and not roles & {"colocated", "semi_pd"}:
            needed.append("decode")
        lacking = [phase for phase in needed if not roles & PHASE_ROLES[phase]]
        return f"no instance for {' and '.join(lacking)} is ready" if lacking else ""

    def _view(self, request_id: int, request: GenerateRequest) -> RequestView:
        block_tokens = self._settings.prefix_block_tokens
        view = RequestView(
            request_id,
            request.arrival_s,
            len(request.prompt),
            prefix_ids(request.prompt, block_tokens),
            block_tokens,
            tenant=request.tenant,
            slo_class=request.slo_class,
            session_id=request.session_id,
        )
        return view._replace(predicted_output_tokens=predicted_tokens(self._prediction, view, self.now_s()))

    def _closed(self, request_id: int, reason: str | None) -> None:
        """The client's side of a stream ended early: as it stands, or for a reason."""
        ticket = self._tickets.get(request_id)
        if ticket is None:
            return
        if reason is None:
            ticket.finish = "stop"
            ticket.job.end()
        else:
            ticket.job.cancel(reason)
        self._over(ticket)

    # ----------------------------------------------------------------------------------------------- what the jobs want

    def ask(self, job: Job, phase: Phase) -> None:
        """See ``job.Effects``. Job executors take turns with new requests; each keeps its own."""
        assert self._peers is not None
        ticket = self._tickets[job.request_id]
        ticket.stop_alarm()
        executors = self._peers.connected("job_executor")
        if executors:
            if ticket.executor not in executors:
                ticket.executor = executors[self._turn % len(executors)]
                self._turn += 1
            self._peers.send(("job_executor", ticket.executor), Ask(job.attempt, phase, job.request.view))
        else:
            ticket.executor = None
            absence_s = self._settings.absence_s
            reason = f"no job executor has been there for {absence_s:g} s"
            nobody = Answer(job.request_id, job.attempt, phase, None, failure=reason)
            ticket.alarm = asyncio.get_running_loop().call_later(absence_s, job.answered, nobody)

    def withdraw(self, job: Job) -> None:
        """See ``job.Effects``."""
        ticket = self._tickets[job.request_id]
        ticket.stop_alarm()
        if self._peers is not None and ticket.executor is not None:
            self._peers.send(("job_executor", ticket.executor), Withdraw(job.request_id))

    def tell(self, instance_id: int, message: tuple[object, ...]) -> None:
        """See ``job.Effects``."""
        if self._peers is not None:
            self._peers.send(("task_executor", instance_id), message)

    def deliver(self, job: Job, tokens: tuple[SampledToken, ...], finish: FinishReason | None) -> None:
        """See ``job.Effects``."""
        ticket = self._tickets[job.request_id]
        ticket.took(tokens, finish, self.now_s())
        ticket.stream.put(tokens, finish)
        if finish is not None:
            self._over(ticket)

    def give_up(self, job: Job, error: ServingError) -> None:
        """See ``job.Effects``."""
        ticket = self._tickets[job.request_id]
        ticket.stream.fail(error)
        self._over(ticket)

    def note(self, job: Job, note: Note) -> None:
        """See ``job.Effects``."""
        self._rows.note(job.request_id, note)
        if note.kind == "lost":
            self._redispatched += 1
        elif note.kind == "reject" and self._peers is not None:
            seat = self._tickets[job.request_id].executor
            if seat is not None:
                rejected = PolicyEvent("rejected", note.at_s, job.request_id, None, 0)
                self._peers.send(("job_executor", seat), News(None, (rejected,)))

    def _over(self, ticket: Ticket) -> None:
        finished = ticket.job.outcome == "finished"
        if self._prediction is not None:
            tokens = len(ticket.job.tokens) if finished else None
            self._prediction.ended(self.now_s(), ticket.job.request_id, tokens)
        del self._tickets[ticket.job.request_id]
        self._rows.add("request", ticket.line(self.now_s()))
        if finished:
            self._counts = total(self._counts, ticket.counts(self._settings.slo))
        if not self._tickets:
            self._idle.set()

    async def _all_over(self) -> None:
        while self._tickets:
            self._idle.clear()
            await self._idle.wait()

    # ---------------------------------------------------------------------------------------------- what the others say

    def _hear(self, key: Key, message: Any) -> None:
        match message:
            case Answer():
                ticket = self._tickets.get(message.request_id)
                if ticket is not None:
                    ticket.job.answered(message)
            case Progress():
                self._progress(key[1], message)
            case News():
                if message.view is not None:
                    self._views[key[1]] = message.view

    def _progress(self, seat: int, progress: Progress) -> None:
        """A step of an instance, in this order: a token comes before the hand-over that it is part of."""
        tickets = self._tickets
        for request_id, cached in progress.cached:
            if request_id in tickets and tickets[request_id].stream.cached_tokens is None:
                tickets[request_id].stream.cached_tokens = cached
        for tokens in progress.tokens:
            if tokens.request_id in tickets:
                tickets[tokens.request_id].job.said(seat, tokens, progress.at_s)
        for ready in progress.ready:
            if ready.parcel.request_id in tickets:
                tickets[ready.parcel.request_id].job.prefilled(seat, ready.attempt, ready.parcel)
        for request_id, attempt in progress.adopted:
            if request_id in tickets:
                tickets[request_id].job.adopted(seat, attempt)
        for request_id, attempt in progress.dropped:
            if request_id in tickets:
                tickets[request_id].job.dropped(seat, attempt)
        for failed in progress.failed:
            if failed.request_id in tickets:
                tickets[failed.request_id].job.failed(seat, failed)

    def _lose(self, key: Key, reason: str) -> None:
        kind, seat = key
        for ticket in list(self._tickets.values()):
            if kind == "task_executor":
                ticket.job.lost(seat, f"instance {seat}: {reason}")
            elif ticket.executor == seat:
                ticket.job.executor_lost()
        if kind == "task_executor":
            self._views.pop(seat, None)

    def _meet(self, key: Key) -> None:
        """A job executor that came: those who found none ask it."""
        if key[0] == "job_executor":
            for ticket in list(self._tickets.values()):
                if ticket.executor is None:
                    ticket.job.executor_lost()


def _shutting_down() -> ServingError:
    return ServingError(503, "the deployment is shutting down", code="shutting_down")
