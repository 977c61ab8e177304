"""Simulating a saved run again, with an eye on it or with one decision replaced: equal configurations, equal events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config import RunConfig
from experiments.config_build import build_cluster, build_trace
from experiments.config_file import load
from experiments.insight.saved_run import SavedRun
from experiments.run import CONFIG, Progress, simulate_to

if TYPE_CHECKING:
    from reference_impl.core.spec import ClusterSpec
    from reference_impl.metrics import RunLog

Change = Callable[["ClusterSpec"], "ClusterSpec"]


class Again:
    """Simulates what a saved run's configuration describes, as often as asked, into ``scratch``.

    Raises what building a run from its configuration raises: a trace or a policy may be gone.
    """

    def __init__(self, saved: SavedRun, scratch: Path) -> None:
        self._config = load(saved.folder / CONFIG, RunConfig)
        self._trace = build_trace(self._config.workload, self._config.seed)
        self.events = scratch / "events.parquet"
        """Of the run before."""

    def run(self, change: Change, progress: Progress | None = None) -> RunLog:
        """Simulate the cluster as ``change`` makes it; every policy is a new object. Raises PolicyError."""
        from reference_impl.metrics import read

        cluster = change(build_cluster(self._config))
        simulate_to(self.events, self._config, cluster, self._trace, progress)
        return read(self.events)


def same_events(first: Path, second: Path) -> bool:
    """Whether two event logs hold the same rows, whoever wrote them."""
    import pyarrow.parquet as pq

    if first.read_bytes() == second.read_bytes():
        return True
    return bool(pq.read_table(first).equals(pq.read_table(second)))
