"""The deployment on Ray Serve: each process is a replica, which Serve places, watches and replaces.

What of Serve's seams is used, and what is not:

- Deployments, one for each kind of process and each role of instance: placement, start in parallel, restart, logs.
- ``check_health``: a replica whose part cannot go on says so, and is replaced.
- Graceful shutdown: an instance that is scaled away first finishes what it has.
- The autoscaling policy function: enacts what the cluster manager's scaling policy wants (``autoscaling``).
- Not the HTTP ingress: see ``http_server``.
- Not handles, and so not a custom request router: a handle call costs more CPU than all that an instance's iteration
  has to say to its clients; a router sits in each calling process, with the state of that process only; and tokens of
  many requests cannot share a message. Requests go over channels; job executors decide where to.
- Not ``user_config``: nothing here changes while it runs, and a redeployment may restart every replica.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.deployment import Application, Deployment

from policies.api import Role
from reference_impl.core.scaling import MAX_INSTANCES, count_roles
from reference_impl.engine.crew import StartCrew
from reference_impl.engine.model_facts import model_folder
from reference_impl.engine.process_crew import ProcessCrews, WorkerSettings
from reference_impl.serve.channel import Network
from reference_impl.serve.http.app import create_app
from reference_impl.serve.http.tokenizer import load_tokenizer
from reference_impl.serve.http_server import HttpServer, own_port
from reference_impl.serve.nodes.front_door import FrontDoorNode
from reference_impl.serve.nodes.job_executor import JobExecutorNode
from reference_impl.serve.nodes.manager import ManagerNode
from reference_impl.serve.nodes.task_executor import TaskExecutorNode
from reference_impl.serve.spec import LiveSpec

_LOG = logging.getLogger(__name__)
_FENCED = 75
"""Exit code of a process that was given up."""
_STARTS = 3
"""How often a process is started before Serve gives up; afterwards it is restarted as often as it takes."""
_LEAVING = "the deployment ends"


class FrontDoor:
    """A replica with a gateway and its HTTP server."""

    async def __init__(self, spec: LiveSpec, *_others: Any) -> None:  # type: ignore[misc]  # Serve awaits it
        """``_others``: handles of the other deployments, which makes them part of the application."""
        _settle(spec)
        self._node = FrontDoorNode(spec, Network(spec.token), _fenced)
        self._http: HttpServer | None = None
        assert spec.engine is not None
        tokenizer = load_tokenizer(model_folder(spec.engine.source.path), spec.http.vocab_size)
        await self._node.start()
        seat, count = self._node.seat, spec.front_doors
        settings = spec.http.of_one(seat, count, own_port(spec.port, seat))
        app = create_app(settings, tokenizer, self._node.gateway)
        self._http = HttpServer(app, settings.host, spec.port, shared=count > 1, own_port=settings.own_port)
        await self._http.start()
        self._node.open_to_clients()

    async def check_health(self) -> None:
        """Raise where it accepts no connections."""
        if self._http is None or not self._http.running:
            raise RuntimeError("the HTTP server has ended")

    async def __del__(self) -> None:
        await self._node.gateway.drain(0.0)
        if self._http is not None:
            await self._http.stop()
        await self._node.stop(_LEAVING)


class JobExecutor:
    """A replica with a dispatch policy."""

    async def __init__(self, spec: LiveSpec) -> None:  # type: ignore[misc]  # Serve awaits it
        _settle(spec)
        self._node = JobExecutorNode(spec, Network(spec.token), _fenced)
        await self._node.start()

    async def __del__(self) -> None:
        await self._node.stop(_LEAVING)


class TaskExecutor:
    """A replica with an instance; its workers are processes of their own."""

    async def __init__(self, spec: LiveSpec, role: Role) -> None:  # type: ignore[misc]  # Serve awaits it
        _settle(spec)
        self._drain_s = spec.timing.drain_s
        self._node = TaskExecutorNode(spec, role, lambda _seat: crews_of(spec), Network(spec.token), _fenced)
        await self._node.start()

    async def check_health(self) -> None:
        """Raise where its workers do not start."""
        if self._node.server.state == "failed":
            raise RuntimeError(self._node.server.executor.failure)

    async def __del__(self) -> None:
        await self._node.retire(self._drain_s)
        await self._node.stop(_LEAVING)


class Manager:
    """A replica with the cluster manager."""

    async def __init__(self, spec: LiveSpec) -> None:  # type: ignore[misc]  # Serve awaits it
        _settle(spec)
        self._node = ManagerNode(spec, Network(spec.token))
        await self._node.start()

    async def check_health(self) -> None:
        """Raise where it does not see to the others any more."""
        if not self._node.running:
            raise RuntimeError("the cluster manager has ended")

    async def __del__(self) -> None:
        await self._node.stop(_LEAVING)


def application(spec: LiveSpec) -> Application:
    """All deployments of a spec as one application, so that Serve starts them at the same time."""
    others = [
        _deployment(Manager, "manager", spec, num_replicas=1).bind(spec),
        _deployment(JobExecutor, "job-executor", spec, num_replicas=spec.job_executors).bind(spec),
    ]
    for role, count in count_roles(instance.role for instance in spec.instances).items():
        options = _scaled(spec, role, count) if spec.scales else {"num_replicas": count}
        others.append(_deployment(TaskExecutor, f"task-executor-{role}", spec, **options).bind(spec, role))
    return _deployment(FrontDoor, "front-door", spec, num_replicas=spec.front_doors).bind(spec, *others)


def crews_of(spec: LiveSpec) -> StartCrew:
    """What starts an instance's workers."""
    engine = spec.engine
    assert engine is not None, "a deployment on Ray needs an engine"
    settings = WorkerSettings(
        engine.source,
        engine.weights_folder,
        spec.epoch_s,
        engine.cores,
        engine.share,
        engine.steady,
        log_folder=spec.folder,
    )
    return ProcessCrews(spec.launcher, spec.run, settings)


def _deployment(kind: type[Any], name: str, spec: LiveSpec, **options: Any) -> Deployment:
    timing = spec.timing
    deployment: Deployment = serve.deployment(
        name=name,
        ray_actor_options={"num_cpus": 0},  # cores are the instances' matter, not Ray's
        health_check_period_s=timing.health_s,
        health_check_timeout_s=timing.silence_s,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=timing.drain_s + 5.0,
        max_constructor_retry_count=_STARTS,
        **options,
    )(kind)
    return deployment


def _scaled(spec: LiveSpec, role: Role, count: int) -> dict[str, Any]:
    policy = AutoscalingPolicy(
        policy_function="reference_impl.serve.autoscaling:ReplicasWanted",
        policy_kwargs={"path": str(spec.targets_file), "role": role},
    )
    config = AutoscalingConfig(
        min_replicas=1,
        initial_replicas=count,
        max_replicas=spec.max_instances or MAX_INSTANCES,
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        policy=policy,
    )
    return {"autoscaling_config": config}


def _settle(spec: LiveSpec) -> None:
    """The user's policies can be imported; our log lines go where Serve's go, into the replica's log."""
    sys.path += [path for path in spec.import_paths if path not in sys.path]
    handlers = logging.getLogger("ray.serve").handlers
    for name in ("reference_impl", "semiflow"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = list(handlers)
        logger.propagate = False


def _fenced(reason: str) -> None:
    """Given up: whatever this process still believes, others have gone on without it. Serve starts another one."""
    _LOG.error("this process was given up: %s; it ends", reason)
    logging.shutdown()
    os._exit(_FENCED)


def failure(spec: LiveSpec) -> str | None:
    """Why the application cannot be brought up, as Serve says; None: it has not given up."""
    application = serve.status().applications.get(spec.run)
    if application is None or application.status != "DEPLOY_FAILED":
        return None
    failed = [one.message for one in application.deployments.values() if one.status == "DEPLOY_FAILED"]
    return _last_line("\n".join(failed) or application.message)


def _last_line(message: str) -> str:
    """Of a traceback: what was raised."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "Ray Serve gave up"
