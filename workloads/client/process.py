"""The client's own process: where it runs, how many connections it may open, what stops it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from workloads.client.errors import ReplayError


@contextlib.contextmanager
def pinned(cores: Sequence[int] | None) -> Iterator[None]:
    """Keep this thread, and those that it starts meanwhile, to ``cores``; None: to none. Raises ReplayError."""
    if cores is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ReplayError(f"client cores {list(cores)}: this system cannot keep a process to cores; leave them out")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError) as error:
        raise ReplayError(f"client cores {list(cores)} are not allowed; allowed: any of {sorted(before)}") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_connections() -> None:
    """Raise this process's limit of open files as far as it goes: each request under way holds a connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS calls the most infinite, and takes less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call ``stop`` in the running event loop, where this is the main thread and they are not
    ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
