"""A task executor's face to the deployment: front doors send it requests, job executors get its reports.

What concerns one front door in one step of the instance is one frame, whatever the number of its requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from policies.api import PolicyEvent
from reference_impl.engine.step import Step
from reference_impl.engine.task_executor import TaskExecutor
from reference_impl.serve.channel import Channel
from reference_impl.serve.messages import Adopt, Beat, Cancel, End, Hello, MemberState, News, Release, Submit
from reference_impl.serve.spool import LogRows
from reference_impl.serve.step_frames import Served, end_of, frames, policy_events

_RESTART_S = 1.0
_PARTING_S = 1.0
"""How long prefilled KV outlasts the connection to its front door. Somebody may be pulling it, for a front door that
lives and is about to hear that the connection broke; then it stops that, before the blocks are anybody else's."""
_FRONT_DOORS_S = 1.0
"""How often front doors, which decide nothing by it, are told how an instance is."""


class TaskServer:
    """Serves one instance to the deployment. ``log`` takes the rows of the event log."""

    def __init__(
        self,
        executor: TaskExecutor,
        report_period_s: float | None,
        log: Callable[[LogRows], None],
        clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self.executor = executor
        self.draining = False
        executor.on_step = self._step
        self._report_period_s = report_period_s
        self._log = log
        self._clock = clock
        self._on_change = on_change
        """Called when :meth:`beat` would say another state than before."""
        self._said: MemberState = "starting"
        self._served: dict[int, Served] = {}
        self._front_doors: set[Channel] = set()
        self._job_executors: set[Channel] = set()
        self._observers: set[Channel] = set()
        self._reports: asyncio.TimerHandle | None = None
        self._shows: asyncio.TimerHandle | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._restarts: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> MemberState:
        """What the cluster manager is told."""
        state = self.executor.view().state
        return "draining" if self.draining and state == "ready" else state

    @property
    def in_flight(self) -> int:
        """Requests that front doors have here."""
        return len(self._served)

    def beat(self) -> Beat:
        """A sign of life."""
        self._said = self.state
        detail = self.executor.failure or ""
        return Beat(self._said, detail, self.executor.view(), in_flight=len(self._served))

    def open(self) -> None:
        """The instance is ready: report."""
        self._report_and_again()
        self._show_and_again()
        self._tell_change()

    async def close(self, reason: str) -> None:
        """Stop the instance; what is here fails, and its front doors are told."""
        for timer in (self._reports, self._shows, self._restart):
            if timer is not None:
                timer.cancel()
        await self.executor.stop()
        for channel in [*self._front_doors, *self._job_executors]:
            channel.close(reason)

    def drain(self) -> None:
        """Take nothing new in: job executors are told to choose others."""
        self.draining = True
        self._tell_change()

    # -------------------------------------------------------------------------------------------------------- requests

    def accept(self, channel: Channel, hello: Hello) -> None:
        """Somebody connects."""
        if hello.kind == "job_executor":
            self._job_executors.add(channel)
            if hello.observes:
                self._observers.add(channel)
            channel.on_close = lambda _reason: self._job_executor_gone(channel)
            channel.send(News(self.executor.view()))
        elif hello.kind == "front_door":
            self._front_doors.add(channel)
            # Deferred in order: what the instance has to say of a request is said before the next word about it.
            channel.on_message = partial(self._take_soon, asyncio.get_running_loop(), channel)
            channel.on_close = lambda reason: self._front_door_gone(channel, reason)

    def _take_soon(self, loop: asyncio.AbstractEventLoop, channel: Channel, message: Any) -> None:
        loop.call_soon(self._take, channel, message)

    def _take(self, channel: Channel, message: Any) -> None:
        if channel.closed is not None:
            return
        match message:
            case Submit() | Adopt():
                self._bring(channel, message)
            case Release():
                if self._strike(channel, message.request_id):
                    self.executor.release(message.request_id)
            case Cancel():
                if self._strike(channel, message.request_id):
                    self.executor.cancel(message.request_id, message.reason)
            case End():
                if self._strike(channel, message.request_id):
                    self.executor.end(message.request_id)

    def _strike(self, channel: Channel, request_id: int) -> bool:
        """Off the list; False where it was brought anew over another connection: this word is not about that."""
        served = self._served.get(request_id)
        if served is not None and served.channel is not channel:
            return False
        self._served.pop(request_id, None)
        return True

    def _bring(self, channel: Channel, message: Submit | Adopt) -> None:
        request = message.request
        view = request.view
        before = self._served.get(view.request_id)
        if before is not None and (before.channel is not channel or before.attempt != message.attempt):
            # Its front door had lost the old connection before we did: what is here is not what it goes on from.
            self.executor.cancel(view.request_id, None)
        self._served[view.request_id] = Served(channel, message.attempt, len(request.generated))
        if isinstance(message, Adopt):
            self.executor.adopt(request, message.parcel)
            return
        if self._observers:
            instance_id = self.executor.view().instance_id
            self._notify((PolicyEvent("dispatched", self._clock(), view.request_id, instance_id, view.prompt_tokens),))
        self.executor.submit(request)

    def _front_door_gone(self, channel: Channel, reason: str) -> None:
        self._front_doors.discard(channel)
        loop = asyncio.get_running_loop()
        for request_id in [request_id for request_id, served in self._served.items() if served.channel is channel]:
            if self.executor.is_parked(request_id):
                loop.call_later(_PARTING_S, self._abandon, channel, request_id, reason)
            else:
                self._abandon(channel, request_id, reason)

    def _abandon(self, channel: Channel, request_id: int, reason: str) -> None:
        if self._strike(channel, request_id):
            self.executor.cancel(request_id, f"its front door is gone: {reason}")

    def _job_executor_gone(self, channel: Channel) -> None:
        self._job_executors.discard(channel)
        self._observers.discard(channel)

    # ----------------------------------------------------------------------------------------------------------- steps

    def _step(self, step: Step) -> None:
        """The log's rows leave before the tokens: what a client has, the log has, even if this process is killed."""
        rows = self.executor.take_rows()
        rows.pop("reject", None)  # whether a request is refused for good is its front door's to say
        self._log(rows)
        self._send_progress(step, rows)
        if self._observers:
            self._notify(policy_events(rows))
        if step.changed:
            if self._report_period_s is None or self._said != self.state:
                self._report()
            self._tell_change()

    def _send_progress(self, step: Step, rows: LogRows) -> None:
        for channel, progress in frames(step, rows, self._served, end_of(rows, self._clock())).items():
            channel.send(progress)

    def _notify(self, events: tuple[PolicyEvent, ...]) -> None:
        if events:
            for channel in list(self._observers):
                channel.send(News(None, events))

    # --------------------------------------------------------------------------------------------------------- reports

    def _report(self) -> None:
        view = self.executor.view()
        for channel in list(self._job_executors):
            channel.send(News(view))

    def _report_and_again(self) -> None:
        self._report()
        if self._report_period_s is not None:
            loop = asyncio.get_running_loop()
            self._reports = loop.call_later(self._report_period_s, self._report_and_again)

    def _show_and_again(self) -> None:
        view = self.executor.view()
        for channel in list(self._front_doors):
            channel.send(News(view))
        self._shows = asyncio.get_running_loop().call_later(_FRONT_DOORS_S, self._show_and_again)

    def _tell_change(self) -> None:
        if self.state == self._said:
            return
        self._on_change()
        if self.executor.failure is not None and self._restart is None:
            # A policy raised: its requests have their error; those to come get new policy objects.
            self._restart = asyncio.get_running_loop().call_later(_RESTART_S, self._start_anew)

    def _start_anew(self) -> None:
        self._restart = None
        if self.executor.failure is not None:
            task = asyncio.create_task(self.executor.restart(self.executor.failure))
            self._restarts.add(task)
            task.add_done_callback(self._restarts.discard)
