"""A process's own folder for what it throws away, in a place that outlives it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_PREFIX = ".scratch-"


@contextlib.contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """Yield a folder in ``place`` that is gone afterwards; first, those of processes that were killed go.

    Its owner holds a lock on it, which ends with the process: a folder stays while somebody has it, on other machines
    that share ``place`` too. Several processes may share a place.
    """
    place.mkdir(parents=True, exist_ok=True)
    for other in place.glob(f"{_PREFIX}*"):
        _remove_left(other)
    own = place / f"{_PREFIX}{os.getpid()}"
    own.mkdir(exist_ok=True)
    lock = os.open(own, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(lock)


def _remove_left(folder: Path) -> None:
    if _lives(folder.name.removeprefix(_PREFIX)):
        return
    with contextlib.suppress(OSError):  # it is in use, another one removes it, or it may not be removed by us
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(lock)


def _lives(process: str) -> bool:
    """Whether a process of this number is here; it may have begun and not yet locked its folder."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):  # no folder of ours, or another user's
        return True
    return True
