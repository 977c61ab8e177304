"""The cluster manager as a process."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial

from reference_impl.latency.estimate import ModelEstimate
from reference_impl.serve.autoscaling import write_targets
from reference_impl.serve.channel import Network
from reference_impl.serve.cluster_manager import ClusterManager, ManagerSettings
from reference_impl.serve.spec import LiveSpec


class ManagerNode:
    """Hosts the cluster manager."""

    def __init__(self, spec: LiveSpec, network: Network) -> None:
        settings = ManagerSettings(
            address=spec.manager,
            front_doors=spec.front_doors,
            job_executors=spec.job_executors,
            roles=tuple(instance.role for instance in spec.instances),
            estimate=ModelEstimate(spec.instances[0].latency),
            max_instances=spec.max_instances,
            state_file=spec.folder / "manager.json",
            spool=spec.record.spool if spec.record is not None and spec.logs else None,
            silence_s=spec.timing.silence_s,
            absence_s=spec.timing.rejoin_s,
        )
        enact = partial(write_targets, spec.targets_file)
        self.manager = ClusterManager(settings, network, spec.scaling.build(spec.seed), spec.clock, _kill, enact)

    async def start(self) -> None:
        """Return once members can join."""
        await self.manager.start()

    @property
    def running(self) -> bool:
        """Whether it sees to its members; once it does not, another process has to."""
        return self.manager.running

    async def stop(self, reason: str) -> None:
        """Return once all rows that came are written."""
        await self.manager.stop(reason)


def _kill(pid: int) -> None:
    """End a process that was given up: its replacement can start at once. Ours it is not."""
    if pid != os.getpid():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
