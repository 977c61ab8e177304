"""Which requests met their service-level objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from reference_impl.metrics.log import Bools
from reference_impl.metrics.requests import RequestTable


class SloTargets(Protocol):
    """Targets of one request, in seconds; None: not judged. ``reference_impl.core.spec.Slo`` is one."""

    @property
    def ttft_s(self) -> float | None: ...
    @property
    def tpot_s(self) -> float | None: ...


@dataclass(frozen=True)
class LoggedSlo:
    """The targets that an event log was recorded under."""

    ttft_s: float | None
    tpot_s: float | None

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> LoggedSlo | None:
        """From an event log's metadata; None: the run had no SLO."""
        slo = metadata.get("slo")
        return cls(slo.get("ttft_s"), slo.get("tpot_s")) if slo else None


def met_ttft(table: RequestTable, target_s: float | None) -> Bools:
    """Finished requests whose first token came in time. No target: all finished ones."""
    return table.finished & (table.ttft_s <= target_s) if target_s is not None else table.finished.copy()


def met_tpot(table: RequestTable, target_s: float | None) -> Bools:
    """Finished requests whose mean time per further token is in target; one output token has none and passes."""
    if target_s is None:
        return table.finished.copy()
    return table.finished & (np.isnan(table.tpot_s) | (table.tpot_s <= target_s))


def met(table: RequestTable, slo: SloTargets) -> Bools:
    """Requests that met every target. Rejected and unfinished ones never do."""
    return met_ttft(table, slo.ttft_s) & met_tpot(table, slo.tpot_s)
