"""Files in memory that the processes of one run share: their names, who owns them, and what a dead run left behind.

Every file is called ``semiflow-RUN-NAME`` and lies in one folder. The owner of a run holds a lock on
``semiflow-RUN.lock`` as long as it lives, so whoever comes later can tell a dead run from a live one.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from pathlib import Path

from reference_impl.engine.api import EngineError

_RUN = re.compile(r"[A-Za-z0-9_]{1,64}")
_LOCK = re.compile(r"semiflow-([A-Za-z0-9_]+)\.lock")


def shared_folder() -> Path:
    """A folder whose files are memory where there is one, else that of temporary files."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def shared_path(run: str, name: str) -> Path:
    """Where a run's file of that name lies."""
    return shared_folder() / f"semiflow-{_checked(run)}-{name}"


class RunLock:
    """Says that a run is alive, until it is released or its process ends in whatever way."""

    def __init__(self, run: str) -> None:
        self.run = _checked(run)
        self._path = shared_folder() / f"semiflow-{run}.lock"
        self._descriptor = _lock(self._path)
        if self._descriptor is None:
            raise EngineError(f"run {run!r} is alive in another process; choose another name")

    def release(self) -> None:
        """Remove what the run has left, and the lock."""
        if self._descriptor is not None:
            sweep(self.run)
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def sweep(run: str, name: str = "") -> list[Path]:
    """Remove a run's files whose names begin with ``name``; returns them."""
    found = sorted(shared_folder().glob(f"semiflow-{_checked(run)}-{name}*"))
    for path in found:
        path.unlink(missing_ok=True)
    return found


def sweep_dead() -> list[Path]:
    """Remove the files of every run whose owner is dead; returns them."""
    removed = []
    for path in sorted(shared_folder().glob("semiflow-*.lock")):
        named = _LOCK.fullmatch(path.name)
        descriptor = _lock(path, create=False) if named else None
        if named and descriptor is not None:
            removed += sweep(named[1])
            path.unlink(missing_ok=True)
            os.close(descriptor)
    return removed


def _lock(path: Path, *, create: bool = True) -> int | None:
    """The locked file's descriptor; None where another process holds the lock, or the file is not ours."""
    try:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except OSError:
        if create:
            raise
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _checked(run: str) -> str:
    if not _RUN.fullmatch(run):
        raise EngineError(f"a run cannot be called {run!r}; allowed: 1 to 64 letters, digits and underscores")
    return run
