"""One life of an instance: from a crew that stands ready until it is closed, or until one of its workers is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import astuple

from reference_impl.core.instance import Instance
from reference_impl.core.standstill import stands_still
from reference_impl.engine.api import EngineRequest
from reference_impl.engine.arrivals import Arrivals
from reference_impl.engine.crew import Crew
from reference_impl.engine.engine import Engine, EngineSettings
from reference_impl.engine.inbox import Inbox
from reference_impl.engine.post import Post
from reference_impl.engine.step import Parcel


class Running:
    """The engine of one crew, its hand-overs, and the event loop's eyes on its executors."""

    def __init__(
        self,
        instance: Instance,
        crew: Crew,
        post: Post,
        plan_ahead: bool,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        settings = EngineSettings(
            plan_ahead=plan_ahead,
            eos_token_ids=crew.eos_token_ids,
            vocab_tokens=crew.vocab_tokens,
            parcel=post.show(crew),
            early_parcels=post.settings.granularity == "layer",
        )
        self.engine = Engine(instance, crew.executors, settings, clock)
        self.crew = crew
        self._post = post
        self._inbox: Inbox | None = None
        if crew.pool is not None:
            arrivals = Arrivals(self.engine, astuple(crew.pool.layout))
            self._inbox = Inbox(arrivals, crew.pool, post.puller, post.settings.timeout_s, clock, wake)
        self._still: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        """Which hand-overs waited to leave and to come in at the last look; None: it did not stand still then."""
        self._watched: list[int] = []
        self._soon: set[int] = set()
        """Lanes without a descriptor whose outcome is about to be collected."""

    def watch(self, ready: Callable[[int], None]) -> None:
        """Have ``ready(place)`` called whenever lane ``place``'s oldest outcome is there."""
        self._ready = ready
        loop = asyncio.get_running_loop()
        for place, lane in enumerate(self.engine.loops):
            descriptor = lane.executor.fileno()
            if descriptor is not None:
                loop.add_reader(descriptor, ready, place)
                self._watched.append(descriptor)

    def adopt(self, request: EngineRequest, parcel: Parcel) -> None:
        """Take a hand-over, or say why not. One that waits here to leave is told in this way that it stays."""
        if self.engine.keep(parcel.request_id):
            return
        if self._inbox is None:
            self.engine.refuse(parcel.request_id, "no KV can be handed over to this instance's device", retry=True)
        else:
            self._inbox.adopt(request, parcel)

    def cancel(self, request_id: int, reason: str | None) -> None:
        """Drop a request in whatever state, and what was to be told of it."""
        if self._inbox is None or not self._inbox.cancel(request_id):
            self.engine.cancel(request_id, reason)
        self.engine.news.forget(request_id)

    def end(self, request_id: int) -> None:
        """A request is finished as it stands; nothing more is told of it."""
        self.engine.end(request_id)
        self.engine.news.forget(request_id)

    def advance(self) -> None:
        """Accept hand-overs, plan, launch. Raises WorkerDiedError."""
        if self._inbox is not None:
            self._inbox.accept()
        self.engine.pump()
        if self._inbox is not None and self.engine.failure is not None:
            self._inbox.fail(self.engine.failure)
        for place, lane in enumerate(self.engine.loops):
            if lane.flights and place not in self._soon and lane.executor.fileno() is None:
                self._soon.add(place)
                asyncio.get_running_loop().call_soon(self._collect_soon, place)

    def _collect_soon(self, place: int) -> None:
        self._soon.discard(place)
        self._ready(place)

    def stalled(self, timeout_s: float) -> str | None:
        """Which worker has not answered for so long, in words; None: none."""
        now_s = self.engine.clock()
        for lane in self.engine.loops:
            if lane.flights and now_s - lane.since_s > timeout_s:
                return f"the {lane.lane.kind} worker has not answered for {timeout_s:g} s"
        return None

    def look(self) -> None:
        """To be called now and then: nothing has moved since the last look where it finds the same hand-overs wait."""
        instance = self.engine.instance
        still = (tuple(instance.outbound), tuple(instance.promises)) if stands_still(instance) else None
        if still is not None and still == self._still:
            self.engine.give_way()
        self._still = still

    def close(self, reason: str) -> None:
        """Fail everything that is here, end the workers, give the memory back."""
        loop = asyncio.get_running_loop()
        for descriptor in self._watched:
            loop.remove_reader(descriptor)
        if self._inbox is not None:
            self._inbox.fail(reason)
        self.engine.fail(reason)
        self._post.hide()
        self.crew.close()
