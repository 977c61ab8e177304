"""A run's folder appears complete or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.config import ConfigError


@contextlib.contextmanager
def new_folder(target: Path, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its name on a clean exit and vanishes on any error.

    Raises ConfigError at once if ``target`` is there and not an empty folder, unless ``force`` asks to replace it.
    """
    _refuse_taken(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        partial.chmod(0o777 & ~_umask())
        yield partial
        _refuse_taken(target, force)
        _replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented, keys in their given order; NaN is an error, since a figure that cannot be computed is left out."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _refuse_taken(target: Path, force: bool) -> None:
    if target.is_dir():
        if not force and any(target.iterdir()):
            raise ConfigError(f"{target}: the folder is not empty; choose another one or replace it with --force")
    elif target.exists():
        raise ConfigError(f"{target}: a file of that name is in the way; choose another folder")


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
