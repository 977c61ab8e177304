"""One request at the front door, from its arrival to its last token: dispatch, run, hand-over, done.

The front door owns the truth of a request: which tokens its client was given. Whatever fails on the way - a job
executor, an instance, a hand-over - the job asks for an instance again and goes on from there, a bounded number of
times, and then ends with one error. It does no I/O: what it wants done it asks of its :class:`Effects`, which must not
call back before they return.

A hand-over that is announced early is prepared while its prefill goes on: an instance is asked for and pulls layers.
Whatever becomes of that is no failure; with the final parcel a hand-over begins anew, or goes on from where it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple, Protocol

from policies.api import Dispatch, Phase
from reference_impl.engine.api import EngineRequest, FinishReason, SampledToken
from reference_impl.engine.step import Parcel
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import TaskKind, TaskState, TaskView
from reference_impl.serve.messages import Adopt, Answer, Cancel, End, Failed, Release, Submit, Tokens

State = Literal["asking", "serving", "asking_decode", "adopting", "over"]
Outcome = Literal["finished", "rejected", "failed", "cancelled"]


class Note(NamedTuple):
    """Something that belongs into the event log."""

    kind: Literal["dispatch", "lost", "finish", "reject"]
    at_s: float
    instance_id: int | None = None
    tokens: int = 0
    """Generated so far."""
    reason: str | None = None


class Effects(Protocol):
    """What a job wants done."""

    def now_s(self) -> float: ...
    def ask(self, job: Job, phase: Phase) -> None:
        """Ask a job executor for an instance; whatever becomes of it ends in :meth:`Job.answered`."""
        ...

    def withdraw(self, job: Job) -> None:
        """Forget the last :meth:`ask`."""
        ...

    def tell(self, instance_id: int, message: tuple[object, ...]) -> None:
        """Send to an instance; where that cannot be, :meth:`Job.lost` follows."""
        ...

    def deliver(self, job: Job, tokens: tuple[SampledToken, ...], finish: FinishReason | None) -> None: ...
    def give_up(self, job: Job, error: ServingError) -> None: ...
    def note(self, job: Job, note: Note) -> None: ...


class Job:
    """The state of one request at the front door."""

    def __init__(self, request: EngineRequest, effects: Effects, max_failures: int) -> None:
        self.request = request
        self.request_id = request.view.request_id
        self.state: State = "over"
        self.outcome: Outcome | None = None
        self.attempt = 0
        """Counts how often it was begun; tells an instance's late words from present ones."""
        self.failures = 0
        self.tokens: list[int] = []
        """What the client was given."""
        self.asked: Phase | None = None
        """The decision that it waits for."""
        self.serving: int | None = None
        """The instance that computes, or pulls the KV."""
        self.holder: int | None = None
        """The instance where prefilled KV waits to be pulled."""
        self.puller: int | None = None
        """The instance that was sent an early parcel, until it has adopted the request."""
        self.parcel: Parcel | None = None
        """The last one that was announced; while an instance still prefills, an early one."""
        self.decode_choice: int | None = None
        """The decode instance where the policy chose both at once."""
        self.seen_s = 0.0
        """When the last token came that the client was given, on the instance's clock."""
        self.tasks: list[TaskView] = []
        self._effects = effects
        self._max_failures = max_failures

    # --------------------------------------------------------------------------------------------------- the way down

    def start(self) -> None:
        """Ask for the first instance."""
        self.attempt += 1
        self.state = "asking"
        self._begin("serve")
        self._ask("prefill")

    def answered(self, answer: Answer) -> None:
        """A job executor's decision."""
        if (answer.attempt, answer.phase) != (self.attempt, self.asked):
            return
        self.asked = None
        if answer.dispatch is not None:
            self._dispatched(answer.dispatch)
        elif self.state == "serving":
            return  # it was asked early; it is asked again with the final parcel
        elif answer.reject is not None:
            refused = ServingError(503, f"the dispatch policy refuses it: {answer.reject}", code="rejected")
            self._give_up(refused, "rejected", answer.reject)
        else:
            reason = answer.failure or "the job executor gave no decision"
            self._give_up(ServingError(503, reason, code="no_instance"), "failed", reason)

    def said(self, instance_id: int, tokens: Tokens, at_s: float) -> None:
        """New tokens. Those that the client has already been given are passed over."""
        if not self._is_served_by(instance_id, tokens.attempt):
            return
        known = len(self.tokens) - tokens.position
        if known < 0:
            self._again(
                f"instance {instance_id} sent token {tokens.position} after {len(self.tokens)}", instance_id, None
            )
            return
        fresh = tokens.tokens[known:]
        if not fresh and tokens.finish is None:
            return
        self.tokens += [sampled.token for sampled in fresh]
        self.seen_s = at_s
        if tokens.finish is not None:
            self.serving = None
            self._leave("it is finished")
            self._over("finished")
        self._effects.deliver(self, fresh, tokens.finish)

    def prefilled(self, instance_id: int, attempt: int, parcel: Parcel) -> None:
        """Its KV waits at ``instance_id``, and the token has been said; or an early parcel, and it will.

        Said again of KV that waits, it decodes where it is: else instances would wait for one another for ever.
        """
        if (instance_id, attempt) == (self.holder, self.attempt):
            self._stay(instance_id, parcel)
            return
        if not self._is_served_by(instance_id, attempt):
            return
        self.parcel = parcel
        if not parcel.early:
            self.tasks[-1] = self.tasks[-1]._replace(kind="prefill")
            self.holder, self.serving = instance_id, None
            self.state = "asking_decode"
            self._begin("decode")
        choice = self.decode_choice if self.puller is None else self.puller
        self.decode_choice = None
        if choice is not None:
            self._dispatched(Dispatch(choice))
        elif self.asked is None:
            self._ask("decode")

    def adopted(self, instance_id: int, attempt: int) -> None:
        """``instance_id`` has its KV and decodes from now on."""
        if (instance_id, attempt, self.state) != (self.serving, self.attempt, "adopting"):
            return
        self.state = "serving"
        self.puller = None
        self._release()

    # ------------------------------------------------------------------------------------------------ what goes wrong

    def failed(self, instance_id: int, failure: Failed) -> None:
        """An instance gave it back."""
        if failure.attempt != self.attempt:
            return
        if instance_id not in (self.serving, self.holder):
            self._forget_puller(instance_id)
            return
        # One that failed with the early parcel may have been sent the final one meanwhile: it has to forget that.
        gone = None if instance_id == self.puller else instance_id
        if failure.retry:
            self._again(failure.reason, instance_id, gone)
        else:
            error = ServingError(400, failure.reason, code="context_length_exceeded")
            self._give_up(error, "failed", failure.reason, gone)

    def dropped(self, instance_id: int, attempt: int) -> None:
        """Preempted where it cannot be prefilled again: that is no failure, and may happen any number of times."""
        if self._is_served_by(instance_id, attempt):
            self._restart(instance_id, "cancelled")

    def lost(self, instance_id: int, reason: str) -> None:
        """An instance is not there any more, or cannot be talked to: then it lives, and drops what it has of us.

        So of KV that is being pulled nobody knows whether it was overwritten before the puller had it.
        """
        if instance_id in (self.serving, self.holder):
            self._again(reason, instance_id, gone=instance_id)
        else:
            self._forget_puller(instance_id)

    def executor_lost(self) -> None:
        """The job executor that was asked is gone: ask another one."""
        if self.asked is not None:
            self._effects.ask(self, self.asked)

    # ----------------------------------------------------------------------------------------------- the client's word

    def end(self) -> None:
        """The client has what it wanted."""
        if self.state == "over":
            return
        if self.state == "serving" and self.serving is not None:
            self._effects.tell(self.serving, End(self.request_id))
            self.serving = None
        else:
            last_s = self.seen_s or self._effects.now_s()
            self._effects.note(self, Note("finish", last_s, self.holder, len(self.tokens)))
        self._leave("its client has all it wanted")
        self._over("finished")

    def cancel(self, reason: str) -> None:
        """The client is gone, or its time is over."""
        if self.state == "over":
            return
        self._leave(reason)
        self._note_reject(reason)
        self._over("cancelled")

    # ------------------------------------------------------------------------------------------------------------ own

    def _is_served_by(self, instance_id: int, attempt: int) -> bool:
        return (instance_id, attempt, self.state) == (self.serving, self.attempt, "serving")

    def _ask(self, phase: Phase) -> None:
        self.asked = phase
        self._effects.ask(self, phase)

    def _dispatched(self, dispatch: Dispatch) -> None:
        if self.parcel is not None:
            self._hand_over(dispatch.instance_id, self.parcel)
            return
        effects = self._effects
        self._turn_to(dispatch.instance_id, "serving")
        self.decode_choice = dispatch.decode_instance_id
        effects.note(self, Note("dispatch", effects.now_s(), dispatch.instance_id, reason=dispatch.reason))
        chosen = replace(self._so_far(), decode_instance_id=dispatch.decode_instance_id)
        effects.tell(dispatch.instance_id, Submit(self.attempt, chosen))

    def _hand_over(self, instance_id: int, parcel: Parcel) -> None:
        if parcel.early:
            self.puller = instance_id
        else:
            self._turn_to(instance_id, "adopting")
        self._effects.tell(instance_id, Adopt(self.attempt, self._so_far(), parcel))

    def _stay(self, holder: int, parcel: Parcel) -> None:
        """Nobody is to pull it any more: it is handed over to where it is."""
        if self.asked is not None:
            self._effects.withdraw(self)
            self.asked = None
        if self.serving is not None:
            self._effects.tell(self.serving, Cancel(self.request_id, None))
        self.holder = None
        self._close_task(-2, "done")
        self._hand_over(holder, parcel)

    def _turn_to(self, instance_id: int, state: State) -> None:
        self.serving, self.state = instance_id, state
        self.tasks[-1] = self.tasks[-1]._replace(instance_id=instance_id, state="running")

    def _so_far(self) -> EngineRequest:
        return replace(self.request, generated=tuple(self.tokens))

    def _forget_puller(self, instance_id: int) -> None:
        if instance_id == self.puller:
            self.puller = None

    def _again(self, reason: str, blamed: int, gone: int | None) -> None:
        """Start over elsewhere, or give up; ``gone`` has nothing of it any more."""
        self.failures += 1
        self._effects.note(self, Note("lost", self._effects.now_s(), blamed, len(self.tokens), reason))
        if self.failures <= self._max_failures:
            self._restart(gone, "failed")
            return
        message = f"gave up after {self.failures} failures; the last one: {reason}"
        self._give_up(ServingError(503, message, code="instance_failed"), "failed", message, gone)

    def _restart(self, gone: int | None, state: TaskState) -> None:
        self._leave(None, gone)
        self._close(state)
        self.start()

    def _give_up(self, error: ServingError, outcome: Outcome, reason: str, gone: int | None = None) -> None:
        self._leave(reason, gone)
        self._note_reject(reason)
        self._over(outcome)
        self._effects.give_up(self, error)

    def _leave(self, reason: str | None, gone: int | None = None) -> None:
        """Have everybody but ``gone`` forget it; ``reason`` None: it goes on elsewhere."""
        if self.asked is not None:
            self._effects.withdraw(self)
        for instance_id in {self.serving, self.puller}:
            if instance_id is not None and instance_id != gone:
                self._effects.tell(instance_id, Cancel(self.request_id, reason))
        self.asked = self.serving = self.puller = self.decode_choice = None
        if self.holder == gone:
            self.holder = None
        self._release()

    def _release(self) -> None:
        holder, self.holder, self.parcel = self.holder, None, None
        if holder is not None:
            self._effects.tell(holder, Release(self.request_id))
            self._close_task(-2 if len(self.tasks) > 1 else -1, "done")

    def _note_reject(self, reason: str) -> None:
        self._effects.note(self, Note("reject", self._effects.now_s(), tokens=len(self.tokens), reason=reason))

    def _over(self, outcome: Outcome) -> None:
        self.state = "over"
        self.outcome = outcome
        self._close("done" if outcome == "finished" else "cancelled" if outcome == "cancelled" else "failed")

    def _begin(self, kind: TaskKind) -> None:
        self.tasks.append(TaskView(kind, None, "queued", self._effects.now_s()))

    def _close(self, state: TaskState) -> None:
        for place in range(len(self.tasks)):
            self._close_task(place, state)

    def _close_task(self, place: int, state: TaskState) -> None:
        task = self.tasks[place]
        if task.ended_s is None:
            self.tasks[place] = task._replace(state=state, ended_s=self._effects.now_s())
