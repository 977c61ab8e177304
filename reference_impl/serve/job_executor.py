"""A job executor: it decides which instance serves a request, and does nothing else.

It has its own policy object and its own view of the instances, which is as old as their last report. What the policy
leaves undecided waits here, first come first, and is offered again whenever an instance reports, comes or goes;
hand-overs before new requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from policies.api import Dispatch, DispatchPolicy, Estimate, InstanceView, Phase, PolicyError, PolicyEvent, Reject
from reference_impl.core.router import PHASE_ROLES, Router
from reference_impl.serve.channel import Channel
from reference_impl.serve.messages import Answer, Ask, Hello, Member, Members, News, Withdraw
from reference_impl.serve.peers import Callbacks, Peers
from reference_impl.serve.registry import Key

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.5


@dataclass(frozen=True)
class ExecutorSettings:
    """How it waits."""

    report_delay_s: float = 0.0
    """Added to the real age of a report."""
    absence_s: float = 30.0
    """How long a request waits while no instance of its phase is ready."""


class _Question(NamedTuple):
    """An :class:`Ask` without an answer."""

    channel: Channel
    ask: Ask
    since_s: float


class JobExecutor:
    """Answers front doors; see the module."""

    def __init__(
        self,
        policy: DispatchPolicy,
        estimate: Estimate,
        settings: ExecutorSettings,
        clock: Callable[[], float],
    ) -> None:
        self.router = Router(policy, settings.report_delay_s, estimate, ())
        self._settings = settings
        self._clock = clock
        self._own: dict[int, Channel] = {}
        """Requests that it was asked about, of an observing policy: it is told what becomes of these, as if there were
        no other job executors."""
        self._questions: dict[Phase, deque[_Question]] = {"decode": deque(), "prefill": deque()}
        """Hand-overs first: their KV is in the way of others."""
        self._present: dict[int, Member] = {}
        self._views: dict[int, InstanceView] = {}
        """The last report of each instance that is connected."""
        self._shown: dict[int, InstanceView] = {}
        """Whom the policy can choose, each with its report when it came."""
        self._absent_since_s: dict[Phase, float] = dict.fromkeys(self._questions, clock())
        """Of each phase that no instance can be chosen for."""
        self._peers: Peers | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None

    @property
    def queued(self) -> int:
        """Requests without a decision."""
        return sum(map(len, self._questions.values()))

    def open(self, make_peers: Callable[[Callbacks], Peers]) -> None:
        """Begin; ``make_peers`` makes the connections to the instances."""
        self._peers = make_peers(Callbacks(self._hear, self._lose, lambda _key: None))
        self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._look_for_absence)

    def close(self, reason: str) -> None:
        """Stop; open questions stay unanswered."""
        for timer in (self._alarm, self._look):
            if timer is not None:
                timer.cancel()
        if self._peers is not None:
            self._peers.close(reason)

    # ---------------------------------------------------------------------------------------------- from the front door

    def accept(self, channel: Channel, _hello: Hello) -> None:
        """A front door connects."""
        channel.on_message = lambda message: self._take(channel, message)
        channel.on_close = lambda _reason: self._close(channel)

    def _take(self, channel: Channel, message: Any) -> None:
        match message:
            case Ask():
                if self.router.observer is not None:
                    self._own[message.request.request_id] = channel
                self._questions[message.phase].append(_Question(channel, message, self._clock()))
                self._offer(message.phase)
            case Withdraw():
                self._forget(
                    lambda question: question.channel is channel and _request_id(question) == message.request_id
                )
            case News():
                self._notify(message.events)

    def _close(self, channel: Channel) -> None:
        """A front door is gone, and its requests with it."""
        self._own = {request_id: asker for request_id, asker in self._own.items() if asker is not channel}
        self._forget(lambda question: question.channel is channel)

    def _notify(self, events: tuple[PolicyEvent, ...]) -> None:
        for event in events:
            if event.request_id in self._own:
                self.router.notify(event)
                if event.kind in ("finished", "rejected"):
                    del self._own[event.request_id]

    def _forget(self, which: Callable[[_Question], bool]) -> None:
        for phase, questions in self._questions.items():
            self._questions[phase] = deque(question for question in questions if not which(question))

    # ----------------------------------------------------------------------------------------------- from the instances

    def members(self, members: Members) -> None:
        """What the cluster manager says is there."""
        instances = [member for member in members.members if member.kind == "task_executor"]
        self._present = {member.seat: member for member in instances if member.state == "ready"}
        if self._peers is not None:
            self._peers.update(instances)
        self._show()

    def _hear(self, _key: Key, message: Any) -> None:
        if not isinstance(message, News):
            return
        self._notify(message.events)
        view = message.view
        if view is not None:
            known = self._views.get(view.instance_id)
            self._views[view.instance_id] = view
            if known is None or known.state != view.state:
                self._show()
            self.router.report(view)
            self._offer_all()

    def _lose(self, key: Key, _reason: str) -> None:
        self._views.pop(key[1], None)
        self._show()

    def _show(self) -> None:
        """Who can be chosen: present, connected, and ready by its own word."""
        ready = {seat: view for seat, view in self._views.items() if view.state == "ready" and seat in self._present}
        if ready.keys() != self._shown.keys():
            self._shown = {seat: self._shown.get(seat, view) for seat, view in ready.items()}
            self.router.set_members(list(self._shown.values()))
            self._note_absence()
            self._offer_all()

    def _note_absence(self) -> None:
        for phase in self._questions:
            if any(view.role in PHASE_ROLES[phase] for view in self._shown.values()):
                self._absent_since_s.pop(phase, None)
            else:
                self._absent_since_s.setdefault(phase, self._clock())

    # -------------------------------------------------------------------------------------------------------- decisions

    def _offer_all(self) -> None:
        for phase in self._questions:
            self._offer(phase)

    def _offer(self, phase: Phase) -> None:
        """Ask the policy about what waits, first come first, until it leaves one undecided."""
        questions = self._questions[phase]
        while questions:
            answer = self._decide(questions[0].ask)
            if answer is None:
                self._await_report()
                return
            questions.popleft().channel.send(answer)

    def _decide(self, ask: Ask) -> Answer | None:
        request_id = ask.request.request_id
        try:
            decision = self.router.route(ask.request, ask.phase, self._clock())
        except PolicyError as error:
            _LOG.error("%s", error)
            return Answer(request_id, ask.attempt, ask.phase, None, failure=str(error))
        if isinstance(decision, Dispatch):
            return Answer(request_id, ask.attempt, ask.phase, decision)
        if isinstance(decision, Reject):
            return Answer(request_id, ask.attempt, ask.phase, None, reject=decision.reason)
        return None

    def _await_report(self) -> None:
        """With a report delay, what is under way becomes known without anybody saying so."""
        due_s = self.router.next_report_s
        if due_s is not None and self._alarm is None:
            delay_s = max(0.0, due_s - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(delay_s, self._report_due)

    def _report_due(self) -> None:
        self._alarm = None
        self._offer_all()

    def _look_for_absence(self) -> None:
        """Nobody waits for ever for an instance that does not come."""
        self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._look_for_absence)
        latest_s = self._clock() - self._settings.absence_s
        for phase, since_s in self._absent_since_s.items():
            questions = self._questions[phase]
            while since_s <= latest_s and questions and questions[0].since_s <= latest_s:
                self._refuse(questions.popleft())

    def _refuse(self, question: _Question) -> None:
        ask = question.ask
        reason = f"no instance for its {ask.phase} has been ready for {self._settings.absence_s:g} s"
        question.channel.send(Answer(_request_id(question), ask.attempt, ask.phase, None, failure=reason))


def _request_id(question: _Question) -> int:
    return question.ask.request.request_id
