"""What a result depends on besides its configuration: versions, interpreter, platform, commit."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "pyarrow", "pydantic")


def environment() -> dict[str, Any]:
    """Ready for JSON; ``git_commit`` is absent where semiflow does not run from a checkout."""
    commit = git_commit()
    return {
        "semiflow": semiflow_version(),
        **({"git_commit": commit} if commit else {}),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "packages": {name: version(name) for name in _PACKAGES},
    }


@cache
def semiflow_version() -> str:
    """Of the installed distribution; ``unknown`` where the sources are only on the path."""
    try:
        return version("semiflow")
    except PackageNotFoundError:
        return "unknown"


@cache
def git_commit() -> str | None:
    """Commit of the checkout that this file is in, with ``-dirty`` if it has changes; None outside of a checkout."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / ".git").exists():
        return None
    import subprocess

    command = ("git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
