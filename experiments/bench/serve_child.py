"""What is measured runs in a process of its own, with all that it starts below it, and ends when its input does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_END_S = 120.0


class Child(NamedTuple):
    """A process that said what there is to know."""

    pid: int
    facts: Mapping[str, Any]


@contextlib.contextmanager
def child(module: str, *arguments: str) -> Iterator[Child]:
    """``python -m module arguments`` once it has called :func:`hold`; it has ended afterwards. Raises RuntimeError."""
    command = (sys.executable, "-m", module, *arguments)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("{"):
            raise RuntimeError(f"{module} did not start: it said {line.strip()!r}; see its words above")
        yield Child(process.pid, json.loads(line))
    finally:
        process.stdin.close()
        with process.stdout:
            _ended(process, module)


def hold(facts: Mapping[str, Any]) -> None:
    """In the child: say that it is ready, and return once it is to end."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


def _ended(process: subprocess.Popen[str], module: str) -> None:
    try:
        code = process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        raise RuntimeError(f"{module} had not ended after {_END_S:g} s and was terminated") from None
    if code and sys.exc_info()[0] is None:
        raise RuntimeError(f"{module} ended with exit code {code}; see its words above")
