"""The workers of a deployment without the rest of it: one for each lane of the fleet, with its share, on its cores."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config import RunConfig
from experiments.config_serve import ServeConfig
from experiments.serve_build import build_live
from experiments.weights_folder import weights_folder

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance
    from reference_impl.engine.api import Executor
    from reference_impl.engine.process_crew import ProcessCrew, ProcessCrews


@contextlib.contextmanager
def workers(config: RunConfig) -> Iterator[list[Executor]]:
    """All of them, each after a warm-up forward; gone afterwards. Raises EngineError."""
    from reference_impl.engine.launching import Launcher
    from reference_impl.engine.process_crew import ProcessCrews, WorkerSettings
    from reference_impl.engine.shared_files import RunLock, sweep_dead
    from reference_impl.engine.weights import ModelSource

    serve = config.serve or ServeConfig()
    source = ModelSource(config.fleet.model, serve.weights_seed, serve.dtype, serve.device)
    sweep_dead()
    lock = RunLock(f"profile_{os.getpid()}")
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="semiflow-")))
        launcher = Launcher(folder)
        stack.callback(launcher.close)
        settings = WorkerSettings(
            source, weights_folder(), time.monotonic(), serve.instance_cores, serve.cpu_share, serve.steady
        )
        crews = ProcessCrews(launcher.socket, lock.run, settings)
        started = asyncio.run(_start(crews, _instances(config), stack))
        yield [executor for crew in started for executor in crew.executors]


async def _start(crews: ProcessCrews, instances: Sequence[Instance], stack: contextlib.ExitStack) -> list[ProcessCrew]:
    found = []
    for instance in instances:
        crew = await crews(instance)
        stack.callback(crew.close)
        found.append(crew)
    return found


def _instances(config: RunConfig) -> list[Instance]:
    """As far as workers need them: their lanes and the size of their pools."""
    from reference_impl.core.instance import LANES, Instance
    from reference_impl.core.seeds import policy_seed
    from reference_impl.events import EventLog
    from reference_impl.latency import ModelEstimate

    found = []
    for number, spec in enumerate(build_live(config, None).instances):
        policies = tuple(spec.batch(policy_seed(config.seed, number, place)) for place in range(len(LANES[spec.role])))
        found.append(Instance(number, spec, policies, ModelEstimate(spec.latency), EventLog(None), None))
    return found
