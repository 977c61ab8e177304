"""A Ray cluster of our own on this host, with the settings that were found to matter."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple

RAY_LOGS = "/tmp/ray/session_latest/logs"
_OBJECT_STORE_BYTES = 100 << 20
"""Of Ray's own; nothing of ours goes there."""
_SETTINGS = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # our code runs in a replica's main loop, not in a thread beside it
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",  # which comes with it; the front doors have sockets of their own
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # a killed process's last lines are wanted most
    "RAY_SERVE_LOG_TO_STDERR": "1",  # else Serve replaces print, and tracebacks come out as tuples
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # else the raylet's words on processes that died go to our stdout
}


class LaunchError(RuntimeError):
    """The deployment did not come up, or went down; says why in one line."""


class Cluster(NamedTuple):
    """Ray and Ray Serve, up."""

    dashboard_url: str | None


@contextlib.contextmanager
def serve_cluster(dashboard: bool = False) -> Iterator[Cluster]:
    """Start Ray and Ray Serve, and end them. Raises LaunchError."""
    with ray_cluster(dashboard) as url:
        with without_warnings():
            from ray import serve

            logging.getLogger("ray.serve").setLevel(logging.ERROR)
            serve.start(proxy_location="Disabled")
        try:
            yield Cluster(url)
        finally:
            with without_warnings():
                serve.shutdown()


@contextlib.contextmanager
def ray_cluster(dashboard: bool, others: Mapping[str, str] | None = None) -> Iterator[str | None]:
    """Start Ray, and end it. Yields the dashboard's URL, where there is to be one. Raises LaunchError.

    ``others``: variables of Ray that go before ours.
    """
    with _environment({**_SETTINGS, **(others or {})}):
        with without_warnings():
            import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        if ray.is_initialized():
            raise LaunchError("this process is connected to a Ray cluster already; a deployment starts its own")
        try:
            with _own_signals(), without_warnings():
                context = ray.init(
                    "local",
                    include_dashboard=dashboard,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    log_to_driver=False,
                    configure_logging=False,
                    logging_level=logging.ERROR,
                    namespace="semiflow",
                )
        except (RuntimeError, OSError, ValueError, ConnectionError) as error:
            raise LaunchError(f"Ray did not start: {str(error).splitlines()[0]}") from error
        try:
            yield f"http://{context.dashboard_url}" if dashboard and context.dashboard_url else None
        finally:
            with without_warnings():
                ray.shutdown()


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Ray's own warnings are about Ray: deprecations in what it uses, its future defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Signals are answered as before; Ray puts handlers of its own in their place, which end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Settings that Ray's processes inherit."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
