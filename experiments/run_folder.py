"""A run's folder appears complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.config_base import ConfigError

RUN_FILES = ("config.yaml", "manifest.json", "events.parquet", "metrics.json", "vllm_bench.json")
REQUESTS = "requests.jsonl"
DECISIONS = "decisions*.jsonl"
"""What a run's folder holds, and what it may hold; only a folder that holds nothing else may be replaced."""
SPOOL = "rows.spool"
"""What a live run logs while it lives; a folder that holds it has not been finished."""


@contextlib.contextmanager
def new_folder(target: Path, force: bool = False, rescue: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its name on a clean exit and vanishes on any error.

    Raises ConfigError at once if ``target`` is there and not an empty folder; ``force`` asks to replace it, if it is an
    earlier run's. ``rescue`` is given the folder before it vanishes, and may move it away (:func:`keep_unfinished`).
    """
    told, target = target, Path(os.path.abspath(target))
    _refuse_taken(target, force)
    check_can_hold(target.parent, told)
    partial = _partial(target)
    try:
        partial.chmod(0o777 & ~_umask())
        yield partial
        _refuse_taken(target, force)
        _replace(partial, target)
    except BaseException:
        if rescue is not None:
            rescue(partial)
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_free(target: Path) -> None:
    """Raises ConfigError where :func:`new_folder` would refuse ``target``: for work that ends in a folder."""
    _refuse_taken(Path(os.path.abspath(target)), force=False)
    check_can_hold(target.parent, told=target)


def check_can_hold(folder: Path, told: Path) -> None:
    """Raises ConfigError, which names ``told``, where ``folder`` is not there and cannot be made, or is closed."""
    folder = Path(os.path.abspath(folder))
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{told}: {nearest} is no folder that can be written to; choose another one with --out")


def keep_unfinished(partial: Path, target: Path) -> Path:
    """Name the folder of a run that did not finish after its ``target``; one that is there already stays."""
    target = Path(os.path.abspath(target))
    kept, number = target.with_name(f"{target.name}.unfinished"), 1
    while os.path.lexists(kept):
        number += 1
        kept = target.with_name(f"{target.name}.unfinished-{number}")
    os.rename(partial, kept)
    return kept


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented, keys in their given order; NaN is an error, since a figure that cannot be computed is left out.

    What was there before stays until all is written: the disk may be full.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _partial(target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise ConfigError(f"{target}: cannot be made there: {error.strerror}; choose another folder") from error


def _refuse_taken(target: Path, force: bool) -> None:
    if target.is_symlink():
        raise ConfigError(f"{target}: is a symbolic link; name the folder itself, {os.path.realpath(target)}")
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(f"{target}: a file of that name is in the way; choose another folder")
    if target == Path.cwd():
        raise ConfigError(f"{target}: is the current folder; a run takes a folder of its own")
    entries = sorted(target.iterdir())
    if entries and not force:
        raise ConfigError(f"{target}: the folder is not empty; choose another one or replace it with --force")
    foreign = [path.name for path in entries if not _is_ours(path) or not path.is_file() or path.is_symlink()]
    if foreign:
        raise ConfigError(
            f"{target}: holds {foreign[0]!r}, which no run of semiflow wrote, so --force does not replace it; "
            f"choose another folder (a run's holds {', '.join(RUN_FILES)})"
        )


def _is_ours(path: Path) -> bool:
    return path.name in (*RUN_FILES, REQUESTS) or path.match(DECISIONS)


def _replace(partial: Path, target: Path) -> None:
    """Put ``partial`` in the place of ``target``; the old content goes only once the new one stands."""
    old = partial.with_suffix(".old")
    if target.is_dir():
        os.rename(target, old)
    try:
        os.rename(partial, target)
    except OSError:
        if old.is_dir():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
