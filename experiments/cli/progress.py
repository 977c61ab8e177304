"""Progress of long work on stderr: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

_QUIET_S = 0.5
"""Shorter work shows nothing: drawing a bar would cost more than it tells."""


class Report(Protocol):
    """Shows how far the work is."""

    def __call__(self, done: int, total: int, label: str | None = None) -> None:
        """``label``: what is being done, where it is no longer what the bar began with."""
        ...


@contextlib.contextmanager
def progress(label: str) -> Iterator[Report | None]:
    """Yield ``report(done, total)``, or None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = _Bar(label)
    try:
        yield bar.report
    finally:
        bar.close()


class _Bar:
    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(label, total=None)
        self._shown_from_s = time.monotonic() + _QUIET_S
        self._shown = False

    def report(self, done: int, total: int, label: str | None = None) -> None:
        if not self._shown and time.monotonic() >= self._shown_from_s:
            self._progress.start()
            self._shown = True
        self._progress.update(self._task, completed=done, total=total, description=label)

    def close(self) -> None:
        if self._shown:
            self._progress.stop()
