"""How long ``semiflow serve`` takes to be there, as its user sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import yaml

from experiments.bench.figures import Figure
from experiments.bench.serve_client import begin, finish
from experiments.bench.serve_host import MODEL, described, free_port

_ENTRY = "from experiments.cli import main; main()"
_LIMIT_S = 25.0
_ANSWER_S = 60.0


class Start(NamedTuple):
    """Seconds since the command was given, and what it took to end."""

    ready_s: float
    answered_s: float
    stopping_s: float


def start_up(folder: Path, quick: bool, report: Callable[[str], None]) -> list[Figure]:
    """From the command to its line that it serves, and to the end of the first answer."""
    starts = []
    for number in range(1 if quick else 3):
        starts.append(_start(folder, number))
        report(f"ready after {starts[-1].ready_s:.1f} s")
    stopping_s = median(start.stopping_s for start in starts)
    note = f"two instances of {MODEL}, whole command; it takes {stopping_s:.1f} s to stop"
    ready_s, answered_s = (median(start[place] for start in starts) for place in (0, 1))
    return [
        Figure("serve: start to ready", ready_s, "s", "lower", None, len(starts), floor=_LIMIT_S, note=note),
        Figure("serve: start to the first answer", answered_s, "s", "lower", None, len(starts), floor=_LIMIT_S),
    ]


def _start(folder: Path, number: int) -> Start:
    port = free_port()
    fleet = {"kv_blocks": 512, "max_sequences": 64, "groups": [{"count": 2, "role": "colocated"}]}
    config = folder / f"start-{number}.yaml"
    config.write_text(yaml.safe_dump(described(fleet, {"port": port})), encoding="utf-8")
    started_s = time.monotonic()
    with _served(("serve", str(config), "--out", str(folder / f"run-{number}"))) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready_s = time.monotonic() - started_s
        if not line.startswith("serving"):
            raise RuntimeError(f"semiflow serve did not start: it said {line.strip()!r}; see its words above")
        asyncio.run(_ask(port))
        answered_s = time.monotonic() - started_s
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        if process.wait():
            raise RuntimeError(f"semiflow serve ended with exit code {process.returncode}; see its words above")
        return Start(ready_s, answered_s, time.monotonic() - started_s - answered_s)


@contextlib.contextmanager
def _served(arguments: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = (sys.executable, "-c", _ENTRY, *arguments)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def _ask(port: int) -> None:
    body = {"model": MODEL, "prompt": [7, 8, 9], "max_tokens": 1, "stream": True}
    answer = await finish(await begin(port, "/v1/completions", body), _ANSWER_S)
    if answer.error is not None:
        raise RuntimeError(f"the first request failed: {answer.error}")
