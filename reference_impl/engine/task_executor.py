"""One serving instance in an asyncio loop: its engine, its workers, its hand-overs, and what it does when they fail.

Nothing here knows the deployment's protocol: requests come by method calls, what happens goes to :attr:`on_step`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from policies.api import InstanceView
from reference_impl.core.instance import Instance
from reference_impl.engine.api import EngineRequest, WorkerDiedError
from reference_impl.engine.crew import StartCrew
from reference_impl.engine.news import News
from reference_impl.engine.partitions import begin_partition
from reference_impl.engine.post import HandoverSettings, Post
from reference_impl.engine.pulling import Puller
from reference_impl.engine.running import Running
from reference_impl.engine.step import Failure, Parcel, Step
from reference_impl.events import EventLog

_LOG = logging.getLogger(__name__)
_WATCH_S = 1.0
_STARTS = 3
"""How often a crew is started before the instance gives up."""
RETRY_S = 1.0
"""Pause before the second start; before the third it is twice as long."""


@dataclass(frozen=True)
class TaskSettings:
    """How an instance runs."""

    plan_ahead: bool = False
    stall_timeout_s: float = 60.0
    """An iteration that takes longer means that its worker hangs."""
    handover: HandoverSettings = field(default_factory=HandoverSettings)


def _tell_nobody(step: Step) -> None:
    """What :attr:`TaskExecutor.on_step` is before somebody listens."""


class TaskExecutor:
    """A task executor: one instance, its policies and its workers."""

    def __init__(
        self,
        build: Callable[[EventLog], Instance],
        start_crew: StartCrew,
        settings: TaskSettings,
        clock: Callable[[], float],
        puller: Puller | None = None,
    ) -> None:
        """``build`` makes the instance, with new policy objects, now and whenever it has to start anew.

        ``clock``: seconds since the run began. ``puller``: another one than the settings name.
        """
        self.on_step: Callable[[Step], None] = _tell_nobody
        """Called from the event loop with what has happened, never from within one of this object's methods."""
        self.log = EventLog(None)
        self._build = partial(build, self.log)
        self._start_crew = start_crew
        self._settings = settings
        self._clock = clock
        self._instance = self._build()
        self._instance.state = "starting"
        self._post = Post(settings.handover, self._holds, puller)
        self.running: Running | None = None
        """Its present life; None while its workers (re)start, and once they cannot."""
        self._news = News()
        """Of the times without a running engine."""
        self._waiting: dict[int, Callable[[Running], None]] = {}
        """What came while the workers were starting, by request."""
        self._woken = False
        self._recovery: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._failure: str | None = None

    # -------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Return once every worker has run a forward. Raises EngineError, or PolicyError of a partition policy."""
        await self._post.open()
        await self._begin()
        self._look()

    async def stop(self) -> None:
        """End the workers and give their memory back; what is here fails."""
        if self._watch is not None:
            self._watch.cancel()
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait([self._recovery])
        self._give_up("the instance is being stopped")
        await self._post.close()
        self._flush()

    async def restart(self, reason: str) -> None:
        """A new instance, a new pool, new workers, new policy objects; what is here fails, to be tried elsewhere."""
        self._lose(reason)
        if self._recovery is not None:
            await asyncio.wait([self._recovery])

    @property
    def failure(self) -> str | None:
        """Why it serves nobody until it is restarted; None: it does, or is about to."""
        return self.running.engine.failure if self.running is not None else self._failure

    async def _begin(self) -> None:
        begin_partition(self._instance, self._clock())
        crew = await self._start_crew(self._instance)
        self.running = Running(self._instance, crew, self._post, self._settings.plan_ahead, self._clock, self._wake)
        self.running.watch(self._collect)
        self._failure = None
        self._instance.state = "ready"
        self._instance.changed = True
        waiting, self._waiting = self._waiting, {}
        for bring in waiting.values():
            bring(self.running)
        self._wake()

    def _lose(self, reason: str) -> None:
        """The instance cannot go on as it is."""
        if self._recovery is not None and not self._recovery.done():
            return
        _LOG.warning("instance %d starts anew: %s", self._instance.instance_id, reason)
        self._give_up(reason)
        self._instance = self._build()
        self._instance.state = "starting"
        self._recovery = asyncio.get_running_loop().create_task(self._recover())
        self._wake()

    def _give_up(self, reason: str) -> None:
        running, self.running = self.running, None
        if running is not None:
            running.close(reason)
            self._news.absorb(running.engine.news)
        self._fail_waiting(reason)

    def _fail_waiting(self, reason: str) -> None:
        self._news.failed += [Failure(request_id, reason, retry=True) for request_id in self._waiting]
        self._waiting.clear()

    async def _recover(self) -> None:
        for attempt in range(_STARTS):
            await asyncio.sleep(attempt * RETRY_S)
            try:
                await self._begin()
            except Exception as error:  # noqa: BLE001 - whatever it is, the instance must not wait for ever
                self._failure = str(error) or type(error).__name__
                _LOG.warning("instance %d: its workers do not start", self._instance.instance_id, exc_info=True)
            else:
                return
        self._instance.state = "failed"
        self._fail_waiting(f"its workers do not start: {self._failure}")
        self._wake()

    def _look(self) -> None:
        """Now and then: of itself nothing tells of a worker that hangs, of room for a hand-over that was refused, or of
        instances that wait for one another."""
        period_s = min(_WATCH_S, self._settings.stall_timeout_s / 4)
        self._watch = asyncio.get_running_loop().call_later(period_s, self._look)
        self._post.puller.trim()
        stalled = self.running.stalled(self._settings.stall_timeout_s) if self.running is not None else None
        if stalled is not None:
            self._lose(stalled)
        elif self.running is not None:
            self.running.look()
        self._wake()

    # ---------------------------------------------------------------------------------------------------- requests

    def submit(self, request: EngineRequest) -> None:
        """Queue a request for prefill, unless it is here already. A refusal comes as a failure in a step."""
        self._bring(request.view.request_id, lambda running: running.engine.submit(request))

    def adopt(self, request: EngineRequest, parcel: Parcel) -> None:
        """Take a request over with its KV, as soon as there is room; the final parcel of an early one completes it."""
        self._bring(request.view.request_id, lambda running: running.adopt(request, parcel))

    def release(self, request_id: int) -> None:
        """The KV of a handed-over request is not needed here any more."""
        if self.running is not None:
            self.running.engine.release(request_id)
            self._wake()

    def cancel(self, request_id: int, reason: str | None) -> None:
        """Drop a request in whatever state; ``reason`` goes to the event log, None: it goes on elsewhere.

        No step speaks of it any more, until it is brought again.
        """
        self._news.forget(request_id)
        self._waiting.pop(request_id, None)
        if self.running is not None:
            self.running.cancel(request_id, reason)
            self._wake()

    def end(self, request_id: int) -> None:
        """A request is finished as it stands. No step speaks of it any more."""
        self._news.forget(request_id)
        self._waiting.pop(request_id, None)
        if self.running is not None:
            self.running.end(request_id)
            self._wake()

    def is_parked(self, request_id: int) -> bool:
        """Whether it is prefilled, and its KV waits here for another instance."""
        live = self.running.engine.lives.get(request_id) if self.running is not None else None
        return live is not None and live.parked

    def view(self) -> InstanceView:
        """What it reports now."""
        return self._instance.view(self._clock())

    def take_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Rows of the event log since the last call."""
        return self.log.take()

    def _bring(self, request_id: int, bring: Callable[[Running], None]) -> None:
        if self.running is not None:
            bring(self.running)
        elif self._instance.state == "starting":
            self._waiting[request_id] = bring
        else:
            self._news.failed.append(Failure(request_id, self._failure or "the instance is stopped", retry=True))
        self._wake()

    def _holds(self, request_id: int) -> bool:
        return self.running is not None and request_id in self.running.engine.lives

    # ---------------------------------------------------------------------------------------------------- the loop

    def _wake(self) -> None:
        """Go on once the event loop has delivered what else there is at this moment."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._woken = False
        self._advance()
        self._flush()

    def _collect(self, place: int) -> None:
        """A lane's outcome is there: apply it, launch what follows, then tell."""
        if self.running is not None:
            self._guard(partial(self.running.engine.collect, place))
            self._advance()
            self._flush()

    def _advance(self) -> None:
        if self.running is not None:
            self._guard(self.running.advance)

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except WorkerDiedError as error:
            self._lose(str(error))
        except Exception as error:  # noqa: BLE001 - a bug here must not take the other requests of the process with it
            _LOG.exception("instance %d", self._instance.instance_id)
            self._lose(f"internal error: {type(error).__name__}: {error}")

    def _flush(self) -> None:
        if self.running is not None:
            self._news.absorb(self.running.engine.news)
        step = self._news.take(self._instance.changed)
        self._instance.changed = False
        if step is not None:
            self.on_step(step)
