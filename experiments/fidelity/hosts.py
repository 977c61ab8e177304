"""The two hosts of a setting: what runs it live is handed in, what simulates it is here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from experiments.config import RunConfig
from experiments.config_base import ConfigError

if TYPE_CHECKING:
    from experiments.profiling.overheads import Overheads
    from reference_impl.serve.ray_cluster import Cluster


RUN, CLIENT = "run", "client"


class LiveHost(Protocol):
    """Serves a configuration's trace in real time."""

    def run(self, config: RunConfig, folder: Path) -> None:
        """Deploy, replay the configured trace against the deployment, take it down.

        Leaves a run's folder :data:`RUN` in ``folder``, its requests numbered by arrival.
        """
        ...


class Deployed:
    """The deployment on Ray Serve, and a client that keeps to the cores on which no instance computes.

    A context: Ray comes with the first run and stays until the last one is over.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._stack = contextlib.ExitStack()
        self._cluster: Cluster | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster = None
        self._stack.close()

    def run(self, config: RunConfig, folder: Path) -> None:
        """See :class:`LiveHost`; the client's own account is in :data:`CLIENT`. Raises ConfigError, LaunchError,
        EngineError or ReplayError."""
        from experiments.config_replay import ClientConfig, ReplayConfig
        from experiments.replay import execute_replay
        from experiments.serve import live_deployment

        if config.serve is None:
            raise ConfigError("a live run needs a serve section in the configuration's base")
        with live_deployment(config, folder / RUN, self._report, cluster=self._ray()) as running:
            client = ClientConfig(url=running.url, cores=config.serve.other_cores, trial=False)
            asked = ReplayConfig(workload=config.workload, client=client, seed=config.seed)
            execute_replay(asked, folder / CLIENT)

    def _ray(self) -> Cluster:
        from reference_impl.serve.ray_cluster import serve_cluster

        if self._cluster is None:
            self._report("starting Ray")
            self._cluster = self._stack.enter_context(serve_cluster())
        return self._cluster


def simulated_config(config: RunConfig, profile: Path, overheads: Overheads | None) -> RunConfig:
    """The same run with the costs that were measured: iterations, the front door's delay, the hand-over."""
    fleet = config.fleet.model_copy(update={"hardware_profile": str(profile)})
    host, link = config.host, config.link
    if overheads is not None and overheads.dispatch_delay_s is not None:
        host = host.model_copy(update={"dispatch_delay_s": overheads.dispatch_delay_s})
    if overheads is not None and overheads.handover_bytes_per_s is not None:
        moved = {
            "bandwidth_bytes_per_s": overheads.handover_bytes_per_s,
            "latency_s": overheads.handover_latency_s,
        }
        link = link.model_copy(update=moved)
    return config.model_copy(update={"fleet": fleet, "host": host, "link": link})
