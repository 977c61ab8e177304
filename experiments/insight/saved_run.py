"""A finished run's folder, opened to be looked into: simulated, live, or a replay's."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.config_base import ConfigError
from experiments.config_file import read_mapping
from experiments.run import CONFIG, EVENTS, MANIFEST, METRICS
from experiments.run_folder import SPOOL
from workloads.errors import shown

if TYPE_CHECKING:
    from reference_impl.metrics import RequestTable, RunLog
    from reference_impl.metrics.breakdown import Breakdown
    from reference_impl.metrics.phases import Phases

_AGAIN = "name the folder of a finished run, or run this one again"
Host = Literal["simulated", "live", "replay"]


@dataclass(frozen=True, eq=False)
class SavedRun:
    """What a run left."""

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    metrics: dict[str, float]
    log: RunLog

    @property
    def host(self) -> Host:
        """Who ran it."""
        if self.log.metadata.get("clock") == "client":
            return "replay"
        return "live" if self.log.metadata.get("host") == "live" else "simulated"

    @property
    def events(self) -> Path:
        """The event log's file."""
        return self.folder / EVENTS

    @cached_property
    def table(self) -> RequestTable:
        """One row per request."""
        from reference_impl.metrics import per_request

        return per_request(self.log)

    @cached_property
    def phases(self) -> Phases:
        """What every request did when."""
        from reference_impl.metrics.phases import Phases

        return Phases(self.log)

    @cached_property
    def breakdown(self) -> Breakdown:
        """The same added up."""
        from reference_impl.metrics.breakdown import Breakdown

        return Breakdown(self.log, self.phases)

    def position(self, request: int) -> int:
        """The request's row in :attr:`table`. Raises ConfigError where the run had no such request."""
        import numpy as np

        found = np.flatnonzero(self.table.request == request)
        if not len(found):
            ids = self.table.request
            held = f"{ids.min()} to {ids.max()}" if len(ids) else "none"
            raise ConfigError(f"{self.folder}: request {request} is not in this run; allowed: {held}")
        return int(found[0])


def open_run(folder: Path) -> SavedRun:
    """Open the folder. Raises ConfigError where it is no finished run's, EventLogError where of another version."""
    from reference_impl.metrics import read

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name the folder of a run (simulate, serve or replay --out DIR)")
    if (folder / SPOOL).is_file():
        raise ConfigError(
            f"{folder}: this run has not been finished; finish it with: semiflow record {folder} --out FILE.parquet"
        )
    missing = [name for name in (CONFIG, MANIFEST, EVENTS, METRICS) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"{folder}: holds no {missing[0]}, so it is no finished run; name the folder of a run")
    config, manifest, metrics = read_mapping(folder / CONFIG), _json(folder / MANIFEST), _json(folder / METRICS)
    _check_keys(folder / CONFIG, config, {"workload": dict, "seed": int})
    _check_keys(folder / MANIFEST, manifest, {"semiflow": str, "seed": int})
    if not isinstance(config.get("host", {}), dict):
        raise ConfigError(f"{folder / CONFIG}: host: {config['host']!r} (allowed: keys and values); {_AGAIN}")
    _check_figures(folder / METRICS, metrics)
    return SavedRun(folder, config, manifest, metrics, read(folder / EVENTS))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({type(error).__name__}); {_AGAIN}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: {shown(content)} (allowed: keys and values); {_AGAIN}")
    return content


def _check_keys(path: Path, content: dict[str, Any], needed: dict[str, type]) -> None:
    """What every run has written, whoever ran it."""
    for key, kind in needed.items():
        if not isinstance(content.get(key), kind):
            told = shown(content[key]) if key in content else "missing"
            raise ConfigError(f"{path}: {key}: {told}, so no run of semiflow wrote this file; {_AGAIN}")


def _check_figures(path: Path, metrics: dict[str, Any]) -> None:
    if not metrics:
        raise ConfigError(f"{path}: holds no figure; {_AGAIN}")
    for key, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"{path}: {key}: {shown(value)} (allowed: finite numbers); {_AGAIN}")
