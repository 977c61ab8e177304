"""What befalls a fleet on a schedule: failures, recoveries, slow instances, changes of role. Frozen, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from policies.api import Role


@dataclass(frozen=True)
class Fail:
    """The instance is gone at once, and with it the KV of its requests: they are dispatched again."""

    at_s: float
    instance_id: int


@dataclass(frozen=True)
class Recover:
    """The instance that failed begins to start; it serves ``startup_s`` later, its prefix cache empty."""

    at_s: float
    instance_id: int
    startup_s: float = 0.0


@dataclass(frozen=True)
class Slow:
    """From now on iterations take ``factor`` times as long, also after a failure; 1: as long as ever."""

    at_s: float
    instance_id: int
    factor: float = 1.0


@dataclass(frozen=True)
class ChangeRole:
    """The instance gets no new requests, ends or hands over what it has; ``startup_s`` later it has its new role."""

    at_s: float
    instance_id: int
    role: Role
    startup_s: float = 0.0


FleetEvent = Fail | Recover | Slow | ChangeRole


def check_schedule(events: Iterable[FleetEvent], instances: int) -> None:
    """Raise ValueError unless every event is about one of the configured ``instances`` and can happen in its turn."""
    failed: set[int] = set()
    for event in in_turn(events):
        place = event.instance_id
        if not 0 <= place < instances:
            raise ValueError(f"{event} names instance {place}; allowed: a configured one, 0 to {instances - 1}")
        _check_numbers(event)
        if type(event) is Fail and place in failed:
            raise ValueError(f"{event}: the instance has failed already; let it recover before")
        if type(event) is Recover and place not in failed:
            raise ValueError(f"{event}: the instance has not failed; allowed: one that failed before")
        if type(event) is Fail:
            failed.add(place)
        elif type(event) is Recover:
            failed.discard(place)


def in_turn(events: Iterable[FleetEvent]) -> list[FleetEvent]:
    """By time; events of one moment as they are listed."""
    return sorted(events, key=lambda event: event.at_s)


def _check_numbers(event: FleetEvent) -> None:
    startup_s = event.startup_s if isinstance(event, Recover | ChangeRole) else 0.0
    for name, value in (("at_s", event.at_s), ("startup_s", startup_s)):
        if not isfinite(value) or value < 0:
            raise ValueError(f"{event}: {name} is {value}; allowed: a finite number, 0 or more")
    if isinstance(event, Slow) and not (isfinite(event.factor) and event.factor > 0):
        raise ValueError(f"{event}: factor is {event.factor}; allowed: a finite number above 0")
