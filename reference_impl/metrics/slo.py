"""Which requests met their service-level objective: that of their SLO class where the run gives it one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from reference_impl.metrics.log import Bools, Floats, RunLog
from reference_impl.metrics.requests import RequestTable, per_request
from reference_impl.request_labels import unpacked


@dataclass(frozen=True)
class LoggedSlo:
    """The targets that an event log was recorded under, in seconds; None: not judged."""

    ttft_s: float | None
    tpot_s: float | None
    classes: Mapping[str, LoggedSlo] = field(default_factory=dict)
    """Targets of requests of these SLO classes, in place of the above."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> LoggedSlo | None:
        """From an event log's metadata; None: the run had no SLO."""
        slo = metadata.get("slo")
        if not slo:
            return None
        classes = {name: cls(own.get("ttft_s"), own.get("tpot_s")) for name, own in slo.get("classes", {}).items()}
        return cls(slo.get("ttft_s"), slo.get("tpot_s"), classes)

    def any_target(self, name: str) -> bool:
        """Whether ``ttft_s`` or ``tpot_s`` is a target of any request."""
        return any(getattr(slo, name) is not None for slo in (self, *self.classes.values()))


class Targets(NamedTuple):
    """Targets of each request, by row of the table; infinite: not judged."""

    ttft_s: Floats
    tpot_s: Floats


class Met(NamedTuple):
    """Requests that met their targets, by row of the table; rejected and unfinished ones never do."""

    ttft: Bools
    tpot: Bools
    every: Bools


def targets(run: RunLog, table: RequestTable, slo: LoggedSlo) -> Targets:
    """What each request is judged by."""
    return Targets(_column(run, table, slo, "ttft_s"), _column(run, table, slo, "tpot_s"))


def met(run: RunLog, slo: LoggedSlo) -> Met:
    """Judge every request. A request with one output token has no TPOT and passes that target."""
    table = per_request(run)
    wanted = targets(run, table, slo)
    ttft = table.finished & (np.isinf(wanted.ttft_s) | (table.ttft_s <= wanted.ttft_s))
    tpot = table.finished & (np.isnan(table.tpot_s) | (table.tpot_s <= wanted.tpot_s))
    return Met(ttft, tpot, ttft & tpot)


def _column(run: RunLog, table: RequestTable, slo: LoggedSlo, name: str) -> Floats:
    general = _seconds(slo, name)
    labels = unpacked(run.metadata, "slo_class", table.request) if slo.classes else None
    if labels is None:
        return np.full(len(table), general)
    names, codes = labels
    by_name = [_seconds(slo.classes[each], name) if each in slo.classes else general for each in names]
    return np.array(by_name, np.float64)[codes]


def _seconds(slo: LoggedSlo, name: str) -> float:
    target: float | None = getattr(slo, name)
    return np.inf if target is None else target
