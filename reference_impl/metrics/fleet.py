"""Which instances there were, as what, and for how long: from their rows, or from the metadata where there are none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import inf
from typing import NamedTuple

from reference_impl.metrics.log import LANES, RunLog

_LANES_OF_ROLE: Mapping[str, tuple[str, ...]] = {
    "colocated": ("mixed",),
    "prefill": ("prefill",),
    "decode": ("decode",),
    "semi_pd": ("prefill", "decode"),
}


class Presence(NamedTuple):
    """Sums over the run's window, from the first arrival to the last outcome."""

    lane_s: Mapping[str, float]
    """By kind of lane, how long there were such lanes that serve."""
    total_lane_s: float
    block_s: float
    """KV blocks of the instances that serve, times how long."""
    device_s: float
    """Devices (GPUs) of instances, those that start, drain or change their role too, times how long."""
    devices: float
    """The same over the window: how many there were on average."""
    pools: Mapping[int, int]
    """KV blocks of each instance that ever served, by id."""


class _Change(NamedTuple):
    """An instance from here on: what it costs, and what of it serves."""

    time_s: float
    devices: int
    lanes: tuple[str, ...]
    blocks: int


def presence(run: RunLog) -> Presence:
    """For how long instances, their lanes and their pools were there."""
    if not len(run.rows["ready"]):
        return _from_metadata(run)
    lane_s: dict[str, float] = {}
    block_s = device_s = 0.0
    pools: dict[int, int] = {}
    for place, changes in _changes(run).items():
        ends = [change.time_s for change in changes[1:]] + [run.last_outcome_s]
        for change, end_s in zip(changes, ends, strict=True):
            spent_s = max(min(end_s, run.last_outcome_s) - max(change.time_s, run.first_arrival_s), 0.0)
            device_s += change.devices * spent_s
            block_s += change.blocks * spent_s
            for lane in change.lanes:
                lane_s[lane] = lane_s.get(lane, 0.0) + spent_s
            if change.blocks:
                pools[place] = max(pools.get(place, 0), change.blocks)
    devices = device_s / run.makespan_s if run.makespan_s > 0 else 0.0
    return Presence(lane_s, sum(lane_s.values()), block_s, device_s, devices, pools)


class Roles:
    """What each instance served as, and from when on."""

    def __init__(self, run: RunLog) -> None:
        self._of: dict[int, dict[float, str]] = {int(told["id"]): {-inf: told["role"]} for told in run.instances}
        role_of = {lanes: role for role, lanes in _LANES_OF_ROLE.items()}
        for place, changes in _changes(run).items():
            self._of[place] = {change.time_s: role_of[change.lanes] for change in changes if change.lanes}

    def at(self, instance: int | None, time_s: float) -> str | None:
        """As what it served then, or last."""
        return next((role for from_s, role in reversed(self.of(instance).items()) if from_s <= time_s), None)

    def of(self, instance: int | None) -> dict[float, str]:
        """Since when it served as what, ascending."""
        return self._of.get(-1 if instance is None else instance, {})

    def instances(self, roles: Collection[str]) -> tuple[int, ...]:
        """Those that ever served as one of these."""
        return tuple(place for place, served in sorted(self._of.items()) if any(r in roles for r in served.values()))

    def everyone(self) -> tuple[int, ...]:
        """All that ever served."""
        return self.instances(_LANES_OF_ROLE)


def devices_of(run: RunLog) -> dict[int, int]:
    """Devices of each instance that ever served, by id."""
    stated = {int(instance["id"]): int(instance.get("devices", 0)) for instance in run.instances}
    rows = run.rows["ready"]
    return stated | dict(zip(rows.ints("instance").tolist(), rows.ints("batch").tolist(), strict=True))


def _from_metadata(run: RunLog) -> Presence:
    """All that the metadata names were there all the time."""
    lanes = [lane for instance in run.instances for lane in _LANES_OF_ROLE.get(instance["role"], ())]
    pools = {int(instance["id"]): int(instance["kv_blocks"]) for instance in run.instances if "kv_blocks" in instance}
    devices = sum(int(instance.get("devices", 0)) for instance in run.instances)
    window_s = run.makespan_s
    return Presence(
        {lane: lanes.count(lane) * window_s for lane in set(lanes)},
        len(lanes) * window_s,
        sum(pools.values()) * window_s,
        devices * window_s,
        devices,
        pools,
    )


def _changes(run: RunLog) -> dict[int, list[_Change]]:
    """By instance, ascending; a semi-PD instance has a ``ready`` row for each lane, of one moment."""
    found: dict[int, list[_Change]] = {}
    for _, kind, place, time_s, lane, devices, blocks in sorted(_rows(run)):
        changes = found.setdefault(place, [])
        if kind == "ready":
            beside = changes[-1].lanes if changes and changes[-1].time_s == time_s else ()
            changes.append(_Change(time_s, devices, (*beside, LANES[lane]), blocks))
        else:
            changes.append(_Change(time_s, devices, (), 0))
    return found


def _rows(run: RunLog) -> Iterator[tuple[int, str, int, float, int, int, int]]:
    """In the order of the log: place in it, kind, instance, time, then lane, devices and KV blocks from here on."""
    for kind, told in (("start", ("batch",)), ("ready", ("lane", "batch", "kv_blocks")), ("stop", ()), ("fail", ())):
        rows = run.rows[kind]
        columns = [rows.ints(name) if name in told else [0] * len(rows) for name in ("lane", "batch", "kv_blocks")]
        for i in range(len(rows)):
            row, place, time_s = rows.ints("row")[i], rows.ints("instance")[i], rows.floats("time_s")[i]
            lane, devices, blocks = (int(column[i]) for column in columns)
            yield int(row), kind, int(place), float(time_s), lane, devices, blocks
