"""Files that a command is asked to write: refused before any work is done for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from experiments.config_base import ConfigError


def check_writable(flag: str, file: Path) -> None:
    """Raise ConfigError where ``file`` cannot be written; an existing one may be replaced."""
    if not file.parent.is_dir():
        raise ConfigError(f"{flag} {file}: there is no folder {file.parent}; make it, or name another file")
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ConfigError(f"{flag} {file}: cannot be written; name another file")


def check_new(flag: str, file: Path, endings: Sequence[str], force: bool) -> None:
    """Raise ConfigError where ``file`` has none of ``endings``, cannot be written, or is there already."""
    if not file.name.endswith(tuple(endings)):
        raise ConfigError(f"{flag} {file}: allowed: a name that ends with {' or '.join(endings)}")
    check_writable(flag, file)
    if file.exists() and not force:
        raise ConfigError(f"{file}: exists already; choose another name or overwrite it with --force")
