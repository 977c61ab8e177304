"""Who is there: seats, generations, health. Has no clock and does no I/O; the cluster manager drives it.

A *seat* is a place of its kind that keeps its number when the process in it is replaced: a task executor's is its
instance id. A *generation* tells the processes that had one seat apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from policies.api import InstanceView, Role
from reference_impl.serve.messages import Beat, Join, Kind, Member

Key = tuple[Kind, int]


@dataclass
class Entry:
    """One process."""

    kind: Kind
    seat: int
    generation: int
    address: str
    pid: int
    role: Role | None
    heard_s: float
    """When it last said something."""
    beat: Beat = field(default_factory=lambda: Beat("starting"))
    away_since_s: float | None = None
    """Since when its line is broken; None: it is not."""

    @property
    def key(self) -> Key:
        """Kind and seat."""
        return self.kind, self.seat

    @property
    def member(self) -> Member:
        """What the others are told."""
        return Member(self.kind, self.seat, self.generation, self.address, self.beat.state, self.role, self.pid)


class SeatRefusedError(Exception):
    """A process that cannot join: its seat is somebody else's, or was given up."""


class Registry:
    """The deployment's processes as the cluster manager knows them."""

    def __init__(self, seats: Mapping[Kind, int], roles: Sequence[Role], *, silence_s: float, absence_s: float) -> None:
        self._seats = dict(seats)
        """How many there should be of each kind that has no role."""
        self.roles = list(roles)
        """Of each instance id that was ever given out, the configured ones first."""
        self._configured = len(self.roles)
        self._silence_s = silence_s
        self._absence_s = absence_s
        self._entries: dict[Key, Entry] = {}
        self._given_up: set[tuple[Kind, int, int]] = set()
        self._last_generation = 0

    # ----------------------------------------------------------------------------------------------------- coming in

    def join(self, join: Join, now_s: float) -> Entry | None:
        """A process joins, or again after its line broke; None: not yet. Raises SeatRefusedError."""
        entry = self._seat_new(join, now_s) if join.seat < 0 else self._seat_again(join, now_s)
        if entry is not None:
            self._entries[entry.key] = entry
        return entry

    def _seat_new(self, join: Join, now_s: float) -> Entry | None:
        seat = self._free_seat(join.kind, join.role)
        if seat is None:
            return None
        # Generations count milliseconds, so that they go on rising when the cluster manager is replaced.
        self._last_generation = max(self._last_generation + 1, int(now_s * 1000))
        return Entry(join.kind, seat, self._last_generation, join.address, join.pid, join.role, now_s)

    def _seat_again(self, join: Join, now_s: float) -> Entry:
        if (join.kind, join.seat, join.generation) in self._given_up:
            raise SeatRefusedError("it was given up: away or silent for too long")
        there = self._entries.get((join.kind, join.seat))
        if there is not None and there.generation != join.generation:
            raise SeatRefusedError("another process has its seat")
        if join.kind == "task_executor" and join.role is not None:
            self._note_role(join.seat, join.role)
        entry = Entry(join.kind, join.seat, join.generation, join.address, join.pid, join.role, now_s)
        if there is not None:
            entry.beat = there.beat
        return entry

    def _free_seat(self, kind: Kind, role: Role | None) -> int | None:
        """The lowest free one. None: none is, or one is about to be, and may be what this process is here for."""
        taken = {entry.seat for entry in self.entries(kind)}
        if role is None:
            return next((seat for seat in range(self._seats.get(kind, 0)) if seat not in taken), None)
        for seat, its_role in enumerate(self.roles):
            if its_role == role and seat not in taken:
                return seat
        if any(entry.role == role and entry.away_since_s is not None for entry in self.entries(kind)):
            return None
        self.roles.append(role)
        return len(self.roles) - 1

    def _note_role(self, seat: int, role: Role) -> None:
        """An instance beyond the configured ones that an earlier cluster manager had seated."""
        while len(self.roles) <= seat:
            self.roles.append(role)

    # --------------------------------------------------------------------------------------------------- how they are

    def heard(self, key: Key, generation: int, beat: Beat, now_s: float) -> bool:
        """A sign of life; whether the others have to know of it."""
        entry = self._entries.get(key)
        if entry is None or entry.generation != generation:
            return False
        entry.heard_s = now_s
        changed = entry.beat.state != beat.state
        entry.beat = beat
        return changed

    def away(self, key: Key, generation: int, now_s: float) -> None:
        """Its line broke: it may join again."""
        entry = self._entries.get(key)
        if entry is not None and entry.generation == generation:
            entry.away_since_s = now_s

    def overdue(self, now_s: float) -> list[tuple[Entry, str]]:
        """Who is to be given up, and why."""
        found = []
        for entry in self._entries.values():
            if entry.away_since_s is not None and now_s - entry.away_since_s >= self._absence_s:
                found.append((entry, "it is gone"))
            elif now_s - entry.heard_s >= self._silence_s:
                found.append((entry, f"it was silent for {now_s - entry.heard_s:.1f} s"))
        return found

    def forgive(self, now_s: float) -> None:
        """Nobody's silence counts up to now: the one who listens was asleep."""
        for entry in self._entries.values():
            entry.heard_s = now_s

    def give_up(self, entry: Entry) -> None:
        """Its seat is free from now on; it cannot join again."""
        self._given_up.add((entry.kind, entry.seat, entry.generation))
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]

    # ---------------------------------------------------------------------------------------------------------- views

    def entries(self, kind: Kind | None = None) -> list[Entry]:
        """Who is there, by kind and seat."""
        return [self._entries[key] for key in sorted(self._entries) if kind in (None, key[0])]

    def members(self) -> tuple[Member, ...]:
        """What everybody is told."""
        return tuple(entry.member for entry in self.entries())

    def views(self) -> tuple[InstanceView, ...]:
        """The instances as they last described themselves."""
        beats = (entry.beat for entry in self.entries("task_executor"))
        return tuple(beat.view._replace(state=beat.state) for beat in beats if beat.view is not None)

    def missing(self) -> list[str]:
        """Who of the configured deployment is not ready."""
        ready = {entry.key for entry in self._entries.values() if entry.beat.state == "ready"}
        wanted: Iterable[Key] = [
            *((kind, seat) for kind, count in self._seats.items() for seat in range(count)),
            *(("task_executor", seat) for seat in range(self._configured)),
        ]
        return [f"{kind.replace('_', ' ')} {seat}" for kind, seat in wanted if (kind, seat) not in ready]
