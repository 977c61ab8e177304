"""A live deployment, described: what every one of its processes is given. Plain values, picklable, free of ray."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from policies.registry import PolicySpec
from reference_impl.core.spec import InstanceSpec, Slo
from reference_impl.engine.task_executor import TaskSettings
from reference_impl.engine.weights import ModelSource
from reference_impl.serve.channel import Address
from reference_impl.serve.http.settings import HttpSettings


@dataclass(frozen=True)
class Timing:
    """How patient the processes are with each other. Seconds."""

    beat_s: float = 0.5
    silence_s: float = 10.0
    """Without a sign of life for this long, a process is given up and killed."""
    rejoin_s: float = 1.0
    """One whose line to the cluster manager broke has this long to join again."""
    patience_s: float = 2.0
    """How long a message waits for a connection to an instance."""
    absence_s: float = 30.0
    """How long a request waits while nobody is there who could serve it."""
    drain_s: float = 10.0
    """How long requests may go on once the deployment is told to stop."""
    health_s: float = 1.0
    """How often Ray Serve asks a process whether it is well."""


@dataclass(frozen=True)
class Record:
    """What is kept of a run, and where."""

    folder: Path
    events: bool = True
    decisions: Literal["none", "dispatch", "all"] = "none"

    @property
    def spool(self) -> Path:
        """The rows of the event log, as they came."""
        return self.folder / "rows.spool"


@dataclass(frozen=True)
class EngineSpec:
    """The model, and what it runs on."""

    source: ModelSource
    weights_folder: Path
    cores: tuple[int, ...] | None = None
    """That the workers keep to; None: any."""
    share: float | None = None
    steady: bool = False
    """The share is one of a standard core."""


@dataclass(frozen=True)
class LiveSpec:
    """One deployment on one host."""

    run: str
    """Its name: of its files in shared memory, and in its processes' names."""
    folder: Path
    """For sockets and logs; short, and readable by this user only."""
    epoch_s: float
    """``time.monotonic()`` at the run's second 0."""
    token: str = field(repr=False)
    """What its processes know each other by."""
    instances: tuple[InstanceSpec, ...]
    dispatch: PolicySpec
    scaling: PolicySpec
    predictor: PolicySpec
    http: HttpSettings
    port: int = 8000
    seed: int = 0
    front_doors: int = 1
    job_executors: int = 1
    prefix_block_tokens: int = 16
    task: TaskSettings = field(default_factory=TaskSettings)
    report_period_s: float | None = None
    report_delay_s: float = 0.0
    slo: Slo | None = None
    max_instances: int | None = None
    """Of one role, whatever the scaling policy wants."""
    max_failures: int = 3
    """Of one request, before it gets its error."""
    record: Record | None = None
    engine: EngineSpec | None = None
    """None: whoever starts the instances brings their workers."""
    timing: Timing = field(default_factory=Timing)
    transport: Literal["unix", "tcp"] = "unix"
    import_paths: tuple[str, ...] = ()
    """Where policies of the user are found, after all else."""

    def clock(self) -> float:
        """Seconds since the run's epoch, alike in every process of the host."""
        return time.monotonic() - self.epoch_s

    @property
    def manager(self) -> Address:
        """Where the cluster manager listens. It has to be known before it is there, and after it was replaced."""
        return Address("unix", str(self.folder / "manager.sock"))

    @property
    def logs(self) -> bool:
        """Whether the event log is kept."""
        return self.record is not None and self.record.events

    @property
    def scales(self) -> bool:
        """Whether the number of instances may change."""
        return self.scaling.build(self.seed).interval_s is not None

    @property
    def launcher(self) -> Path:
        """The socket of the host's launcher of workers."""
        return self.folder / "launcher.sock"

    @property
    def targets_file(self) -> Path:
        """How many instances of each role there should be, where scaling has decided so."""
        return self.folder / "targets.json"
