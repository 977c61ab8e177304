"""The cluster manager: who is there, who is well, how many instances there should be, and where the log's rows go.

Nothing that a request waits for goes through it: while it is replaced, serving goes on with the members that
everybody knows already. It keeps next to no state of its own; after a restart the members tell it who they are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.api import Estimate, Role, ScalingPolicy
from reference_impl.core.scaling import count_roles
from reference_impl.serve.channel import Address, Channel, Listener, Network
from reference_impl.serve.messages import (
    Beat,
    Drain,
    Drained,
    Fence,
    Hello,
    Join,
    Kind,
    Members,
    Rows,
    Status,
    Welcome,
)
from reference_impl.serve.registry import Entry, Key, Registry, SeatRefusedError
from reference_impl.serve.row_keeper import RowKeeper
from reference_impl.serve.scaling import Scaler, Traffic

_LOG = logging.getLogger(__name__)
_TICK_S = 0.05
_LATE_S = 2.0
"""Ticks so far apart mean that this process did not run; what the others said meanwhile is yet to be read."""
_REQUEST_IDS = 1 << 16
"""Ids that a replaced front door is taken to have given out, beyond those that it told of."""


@dataclass(frozen=True)
class ManagerSettings:
    """How patient it is, and where it writes."""

    address: Address
    front_doors: int
    job_executors: int
    roles: tuple[Role, ...]
    """Of the configured instances, by id."""
    state_file: Path
    """The little that a restart must not forget."""
    spool: Path | None
    """None: rows are not kept."""
    silence_s: float = 10.0
    """A member that says nothing for this long is given up, and killed where it can be."""
    absence_s: float = 1.0
    """One whose line broke has this long to join again."""
    max_instances: int | None = None
    """Of one role."""
    estimate: Estimate | None = None
    """For scaling policies that predict."""


class ClusterManager:
    """Serves its line to every member.

    ``kill(pid)`` ends a process that was given up; ``enact(targets)`` sees to it that there are so many instances.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        network: Network,
        scaling: ScalingPolicy,
        clock: Callable[[], float],
        kill: Callable[[int], None],
        enact: Callable[[dict[Role, int]], None],
    ) -> None:
        self._settings = settings
        self._network = network
        self._clock = clock
        self._kill = kill
        self._enact = enact
        seats: dict[Kind, int] = {"front_door": settings.front_doors, "job_executor": settings.job_executors}
        self.registry = Registry(seats, settings.roles, silence_s=settings.silence_s, absence_s=settings.absence_s)
        self._scaler = Scaler(scaling, count_roles(settings.roles), settings.estimate, settings.max_instances)
        self._traffic = Traffic()
        self._lines: dict[Key, Channel] = {}
        self._operators: set[Channel] = set()
        self._rows = RowKeeper(settings.spool)
        self._listener: Listener | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._ticked_s = clock()
        self._began_s = clock()
        self._restarted = settings.state_file.exists()
        self._ids_taken: dict[str, int] = self._recall()
        """Of each front door's seat: how many of its ids may have been given out."""
        self._gaps: dict[str, None] = {}
        """What members could not record; it stays so when they are replaced."""
        self._joining: list[tuple[Channel, Join]] = []
        self._stale = True
        """Whether the members have to be told anew who is there."""
        self._status_told: Status | None = None
        self._drain_s: float | None = None
        self._asked_to_drain: set[Key] = set()
        self._drained: set[Key] = set()

    async def start(self) -> None:
        """Listen."""
        self._remember()
        self._rows.start()
        self._listener = await self._network.listen(self._settings.address, self._accept)
        self._ticking = asyncio.create_task(self._tick_for_ever())

    async def stop(self, reason: str) -> None:
        """Stop listening; what came in is written."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        if self._listener is not None:
            self._listener.close(reason)
        await self._rows.stop()

    @property
    def running(self) -> bool:
        """Whether it sees to its members; once it does not, it never will again."""
        return self._ticking is not None and not self._ticking.done()

    # ------------------------------------------------------------------------------------------------------ the lines

    def _accept(self, channel: Channel, hello: Hello) -> None:
        if hello.kind == "operator":
            self._operators.add(channel)
            channel.on_close = lambda _reason: self._operators.discard(channel)
            channel.on_message = self._from_operator
            self._status_told = None
        else:
            channel.on_message = lambda message: self._joining.append((channel, message))
            channel.on_close = lambda _reason: None

    def _seat(self, channel: Channel, join: Join, now_s: float, settled: bool) -> bool:
        """Give it its place; False: it has to wait for one."""
        if channel.closed is not None or not isinstance(join, Join):
            return True
        if not settled and join.seat < 0:
            return False
        try:
            entry = self.registry.join(join, now_s)
        except SeatRefusedError as refusal:
            channel.send(Fence(str(refusal)))
            channel.close(str(refusal))
            return True
        if entry is None:
            return False
        self._welcome(channel, entry, again=join.seat >= 0)
        return True

    def _welcome(self, channel: Channel, entry: Entry, *, again: bool) -> None:
        before = self._lines.get(entry.key)
        self._lines[entry.key] = channel
        if before is not None:
            before.close("the same member has joined again")
        channel.on_message = lambda message: self._from_member(entry, channel, message)
        channel.on_close = lambda _reason: self._line_lost(entry, channel)
        channel.send(Welcome(entry.seat, entry.generation, self._first_request_id(entry, again=again)))
        _LOG.info("%s %d joined (process %d)", entry.kind, entry.seat, entry.pid)
        self._stale = True

    def _line_lost(self, entry: Entry, channel: Channel) -> None:
        if self._lines.get(entry.key) is channel:
            del self._lines[entry.key]
            self.registry.away(entry.key, entry.generation, self._clock())

    def _from_member(self, entry: Entry, channel: Channel, message: Any) -> None:
        match message:
            case Beat():
                if self.registry.heard(entry.key, entry.generation, message, self._clock()):
                    self._stale = True
                self._note(entry, message)
            case Rows():
                self._rows.add(f"{entry.kind}-{entry.seat}-{entry.generation}", message, channel)
            case Drained():
                self._drained.add(entry.key)

    def _note(self, entry: Entry, beat: Beat) -> None:
        """What has to be remembered of a beat for longer than its sender lives."""
        if beat.record_error:
            self._gaps[f"{_name(entry)}: {beat.record_error}"] = None
        if entry.kind == "front_door":
            self._note_ids(entry.seat, beat.next_request_id)

    def _from_operator(self, message: Any) -> None:
        if isinstance(message, Drain):
            self._drain_s = message.seconds

    # ------------------------------------------------------------------------------------------------------- each tick

    async def _tick_for_ever(self) -> None:
        try:
            while True:
                self._tick(self._clock())
                await asyncio.sleep(_TICK_S)
        except Exception:
            _LOG.exception("the cluster manager cannot go on")
            raise

    def _tick(self, now_s: float) -> None:
        """After a restart, wait for those who have seats before new ones get any and anybody is told who is there."""
        if now_s - self._ticked_s > _LATE_S:
            self.registry.forgive(now_s)
        self._ticked_s = now_s
        settled = (
            not self._restarted or now_s - self._began_s >= self._settings.absence_s or not self.registry.missing()
        )
        for entry, reason in self.registry.overdue(now_s):
            self._give_up(entry, reason)
        joining, self._joining = self._joining, []
        self._joining += [asked for asked in joining if not self._seat(*asked, now_s, settled)]
        if not settled:
            return
        self._scale(now_s)
        if self._drain_s is not None:
            self._drain(self._drain_s)
        if self._stale:
            self._stale = False
            members = Members(self.registry.members(), self._log_error())
            for channel in list(self._lines.values()):
                channel.send(members)
        self._tell_operators()

    def _give_up(self, entry: Entry, reason: str) -> None:
        _LOG.warning("%s %d (process %d) is given up: %s", entry.kind, entry.seat, entry.pid, reason)
        self.registry.give_up(entry)
        channel = self._lines.pop(entry.key, None)
        if channel is not None:
            channel.send(Fence(reason))
            channel.close(reason)
            self._kill(entry.pid)
        self._stale = True

    def _tell_operators(self) -> None:
        status = self._status()
        if status != self._status_told:
            if self._status_told is not None and status.log_error != self._status_told.log_error:
                self._stale = True
            self._status_told = status
            for channel in list(self._operators):
                channel.send(status)

    def _status(self) -> Status:
        said = (f"{_name(entry)}: {entry.beat.detail}" for entry in self.registry.entries() if entry.beat.detail)
        return Status(self.registry.members(), tuple(said), self._all_drained(), self._log_error(), os.getpid())

    def _log_error(self) -> str:
        return "; ".join(error for error in (self._rows.error, *self._gaps) if error)

    def _scale(self, now_s: float) -> None:
        if self.registry.missing() and self._scaler.targets == count_roles(self._settings.roles):
            return  # it has not come up yet
        if self._scaler.due(now_s):
            self._traffic.note(self.registry.entries("front_door"))
            if self._scaler.ask(self.registry.views(), self._traffic.since_last(now_s), now_s):
                _LOG.info("scaling to %s: %s", self._scaler.targets, self._scaler.reason or "no reason given")
                self._enact(self._scaler.targets)

    # ------------------------------------------------------------------------------------------------------- the end

    def _drain(self, seconds: float) -> None:
        """Front doors first: while they have requests, the others are needed."""
        front_doors = {entry.key for entry in self.registry.entries("front_door")}
        others = {entry.key for entry in self.registry.entries()} - front_doors
        now = front_doors if not front_doors <= self._drained else others
        for key in now - self._asked_to_drain:
            if key in self._lines:
                self._asked_to_drain.add(key)
                self._lines[key].send(Drain(seconds))

    def _all_drained(self) -> bool:
        everybody = {entry.key for entry in self.registry.entries()}
        return self._drain_s is not None and everybody <= self._drained

    # ---------------------------------------------------------------------------------------------------- request ids

    def _first_request_id(self, entry: Entry, *, again: bool) -> int:
        """Ids that no front door of this seat has used; they are those that leave its seat as the rest."""
        if entry.kind != "front_door" or again:
            return 0
        taken = self._ids_taken.get(str(entry.seat), 0)
        self._take_ids(entry.seat, taken + _REQUEST_IDS)
        return entry.seat + taken * self._settings.front_doors

    def _note_ids(self, seat: int, next_request_id: int) -> None:
        """Stay ahead of what a front door tells of, so that the file is written once in so many requests."""
        told = next_request_id // self._settings.front_doors
        if told + _REQUEST_IDS > self._ids_taken.get(str(seat), 0):
            self._take_ids(seat, told + 2 * _REQUEST_IDS)

    def _take_ids(self, seat: int, taken: int) -> None:
        self._ids_taken[str(seat)] = taken
        self._remember()

    def _recall(self) -> dict[str, int]:
        try:
            taken: dict[str, int] = json.loads(self._settings.state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return taken

    def _remember(self) -> None:
        partial = self._settings.state_file.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(self._ids_taken), encoding="utf-8")
            os.replace(partial, self._settings.state_file)
        except OSError as error:
            _LOG.warning("%s cannot be written: %s", self._settings.state_file, error)


def _name(entry: Entry) -> str:
    return f"{entry.kind.replace('_', ' ')} {entry.seat}"
