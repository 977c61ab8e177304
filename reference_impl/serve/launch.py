"""Bringing a deployment up on this host, and taking it down.

The launcher of workers comes first: it imports torch while Ray starts. Whatever goes wrong, everything that was started
is ended, and what lies in shared memory is removed.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reference_impl.engine.launching import Launcher
from reference_impl.engine.shared_files import RunLock, shared_folder, sweep_dead
from reference_impl.serve.cores import check_cores, on_cores
from reference_impl.serve.http_server import bind, own_port
from reference_impl.serve.messages import Member, Status
from reference_impl.serve.ray_cluster import RAY_LOGS, Cluster, LaunchError, serve_cluster, without_warnings
from reference_impl.serve.spec import LiveSpec
from reference_impl.serve.watching import Watch

Report = Callable[[str], None]
"""Is told what happens, a line at a time."""
_START_S = 180.0
"""Drawing the weights of a model of some size takes its time."""
_ASK_SERVE_S = 2.0
_GONE_S = 120.0
"""Ray Serve has replaced a cluster manager long before."""
_LOOK_S = 0.2
_RUN_FOLDER = re.compile(r"semiflow-(\d+_[0-9a-f]+)")


@dataclass
class Running:
    """A deployment that is up."""

    spec: LiveSpec
    url: str
    ready_s: float
    """From the start to the moment in which it was ready."""
    dashboard_url: str | None
    _launcher: list[Launcher]
    _watch: Watch
    _report: Report

    def wait(self, seconds: float) -> None:
        """Keep it running for a while: a launcher that died is replaced. Raises LaunchError where all is lost."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            if self._watch.away_s > _GONE_S:
                raise LaunchError(f"the cluster manager has been away for {_GONE_S:g} s; the logs are in {RAY_LOGS}")
            if not self._launcher[0].alive():
                self._report("the workers' launcher has died; starting another one")
                self._launcher[0].close()
                self._launcher[0] = Launcher(self.spec.folder)
            time.sleep(min(_LOOK_S, left_s))

    @property
    def launcher_pid(self) -> int:
        """The process that the instances' workers are forked from."""
        return self._launcher[0].pid

    @property
    def status(self) -> Status:
        """Who is there now."""
        return self._watch.wait(lambda _: True, _START_S)

    def drain(self) -> Status | None:
        """Accept nothing new, finish what runs, write all rows; None where that took far too long."""
        self._report(f"finishing what runs, in {self.spec.timing.drain_s:g} s at most")
        try:
            return self._watch.drain(self.spec.timing.drain_s)
        except TimeoutError:
            return None


@contextlib.contextmanager
def launched(
    spec: LiveSpec,
    report: Report,
    *,
    cores: tuple[int, ...] | None = None,
    dashboard: bool = False,
    cluster: Cluster | None = None,
) -> Iterator[Running]:
    """A deployment that is ready, for as long as the context lasts. ``cores``: where all but the workers run once it is
    ready. ``cluster``: Ray and Serve, where they are up already and stay up; else they come and go with it.

    Raises LaunchError, EngineError.
    """
    stack = contextlib.ExitStack()
    try:
        yield _bring_up(stack, spec, report, cores, dashboard, cluster)
    finally:
        with undisturbed(report):
            stack.close()


def _bring_up(
    stack: contextlib.ExitStack,
    spec: LiveSpec,
    report: Report,
    cores: tuple[int, ...] | None,
    dashboard: bool,
    cluster: Cluster | None,
) -> Running:
    started_s = time.monotonic()
    _check_port(spec)
    sweep_dead()
    _sweep_folders(spec.folder.parent)
    stack.callback(RunLock(spec.run).release)
    spec.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stack.callback(shutil.rmtree, spec.folder, ignore_errors=True)
    check_cores(cores)
    launcher = [Launcher(spec.folder)]
    stack.callback(lambda: launcher[0].close())
    arrivals = _Arrivals(report, started_s)
    watch = stack.enter_context(Watch(spec, arrivals.note))
    if cluster is None:
        report("starting Ray")
        cluster = stack.enter_context(serve_cluster(dashboard))
    report(f"starting {_summary(spec)}")
    stack.enter_context(_serving(spec))
    _await_ready(spec, watch)
    stack.enter_context(on_cores(cores, lambda: launcher[0].pid))
    url = f"http://{_in_url(spec.http.host)}:{spec.port}"
    return Running(spec, url, time.monotonic() - started_s, cluster.dashboard_url, launcher, watch, report)


def _check_port(spec: LiveSpec) -> None:
    """Two deployments on one port would share its clients."""
    own = [own_port(spec.port, seat) for seat in range(spec.front_doors)] if spec.front_doors > 1 else []
    for port in (spec.port, *own):
        try:
            bind(spec.http.host, port, shared=False).close()
        except OSError as error:
            raise LaunchError(
                f"{spec.http.host}:{port} cannot be listened at: {error.strerror or error}; choose another port"
            ) from error


def _sweep_folders(parent: Path) -> None:
    """Remove what deployments have left whose operator was killed: theirs have no lock any more."""
    for folder in parent.glob("semiflow-*"):
        run = _RUN_FOLDER.fullmatch(folder.name)
        if run is not None and folder.is_dir() and not (shared_folder() / f"semiflow-{run[1]}.lock").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _await_ready(spec: LiveSpec, watch: Watch) -> None:
    """Return once everybody has come; raise LaunchError where somebody, or Serve, says that it cannot be."""
    from reference_impl.serve.deployment import failure

    def settled(status: Status) -> bool:
        return any(member.state == "failed" for member in status.members) or is_complete(spec, status)

    status = None
    end_s = time.monotonic() + _START_S
    while status is None:
        with contextlib.suppress(TimeoutError):
            status = watch.wait(settled, _ASK_SERVE_S)
        reason = failure(spec) if status is None else None
        if reason is not None:
            raise LaunchError(f"{reason}; the logs are in {RAY_LOGS}")
        if time.monotonic() > end_s:
            raise LaunchError(f"the deployment was not ready after {_START_S:g} s; the logs are in {RAY_LOGS}")
    if any(member.state == "failed" for member in status.members):
        raise LaunchError("; ".join(status.details))


def is_complete(spec: LiveSpec, status: Status) -> bool:
    """Whether everybody that is configured is there and ready."""
    wanted = spec.front_doors + spec.job_executors + len(spec.instances)
    return sum(member.state == "ready" for member in status.members) >= wanted


@contextlib.contextmanager
def _serving(spec: LiveSpec) -> Iterator[None]:
    """The application is on its way; at the end it is gone."""
    with without_warnings():
        from ray import serve

        from reference_impl.serve.deployment import application

        try:
            target = serve.RunTarget(target=application(spec), name=spec.run, route_prefix=None)
            waits = {"wait_for_ingress_deployment_creation": False, "wait_for_applications_running": False}
            serve.run_many([target], **waits)
        except BaseException:
            serve.delete(spec.run)
            raise
    try:
        yield
    finally:
        with without_warnings():
            serve.delete(spec.run)


@contextlib.contextmanager
def undisturbed(report: Report) -> Iterator[None]:
    """Ctrl-C and SIGTERM have no effect: what was started must be ended, what was recorded be kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in chosen}
    for number in chosen:
        signal.signal(number, lambda *_: report("stopping already; this takes a few seconds"))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Arrivals:
    """Reports each process once it is ready, and again when another one takes its place."""

    def __init__(self, report: Report, started_s: float) -> None:
        self._report = report
        self._started_s = started_s
        self._ready: set[tuple[str, int]] = set()
        self._log_error = ""

    def note(self, status: Status) -> None:
        """What the cluster manager says now."""
        now_s = time.monotonic() - self._started_s
        ready = {
            (_name(member), member.generation) for member in status.members if member.state in ("ready", "draining")
        }
        for name, _ in sorted(ready - self._ready):
            self._report(f"{name} is ready after {now_s:.1f} s")
        for name, _ in sorted(self._ready - ready):
            self._report(f"{name} is gone after {now_s:.1f} s; another process takes its place")
        self._ready = ready
        if status.log_error not in ("", self._log_error):
            self._log_error = status.log_error
            self._report(f"the record of this run is not whole: {status.log_error}; serving goes on without it")


def _name(member: Member) -> str:
    if member.kind == "task_executor":
        return f"instance {member.seat} ({member.role})"
    return f"{member.kind.replace('_', ' ')} {member.seat}"


def _summary(spec: LiveSpec) -> str:
    parts = ((spec.front_doors, "front door"), (spec.job_executors, "job executor"), (len(spec.instances), "instance"))
    return ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for count, name in parts)


def _in_url(host: str) -> str:
    """A host as a client on this machine writes it."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{reachable}]" if ":" in reachable else reachable
