"""What befalls the fleet of a simulated run, and when: the section ``fleet.events``.

Each entry has a ``kind``: ``fail``, ``recover``, ``slow`` or ``role``; what they mean is said in
``reference_impl/core/fleet_events.py``. Instances are named by id: 0, 1, ... in the order of ``fleet.groups``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from experiments.config_base import MAX_INSTANCES, RoleName, Seconds, StrictModel

if TYPE_CHECKING:
    from reference_impl.core.fleet_events import FleetEvent


class _Event(StrictModel):
    at_s: Seconds
    """On the clock of the trace, which starts at 0."""
    instance: Annotated[int, Field(ge=0, lt=MAX_INSTANCES)]


class FailConfig(_Event):
    kind: Literal["fail"]


class RecoverConfig(_Event):
    kind: Literal["recover"]
    startup_s: Seconds = 0.0


class SlowConfig(_Event):
    kind: Literal["slow"]
    factor: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    """An iteration takes so many times as long; 1: as long as ever."""


class RoleConfig(_Event):
    kind: Literal["role"]
    role: RoleName
    startup_s: Seconds = 0.0


FleetEventConfig = Annotated[FailConfig | RecoverConfig | SlowConfig | RoleConfig, Field(discriminator="kind")]


def build_events(events: Iterable[FleetEventConfig]) -> tuple[FleetEvent, ...]:
    """The schedule as hosts understand it."""
    return tuple(_event(event) for event in events)


def _event(given: FleetEventConfig) -> FleetEvent:
    from reference_impl.core.fleet_events import ChangeRole, Fail, Recover, Slow

    match given:
        case FailConfig():
            return Fail(given.at_s, given.instance)
        case RecoverConfig():
            return Recover(given.at_s, given.instance, given.startup_s)
        case SlowConfig():
            return Slow(given.at_s, given.instance, given.factor)
        case RoleConfig():
            return ChangeRole(given.at_s, given.instance, given.role, given.startup_s)
