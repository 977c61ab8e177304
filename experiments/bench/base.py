"""The first slice's figures of another version and of this one, measured in turns in one run.

The other version is checked out into a temporary folder and imported from there by the same interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from experiments.bench.figures import Figure
from experiments.bench.processes import TEN_REQUESTS, started
from experiments.config_base import ConfigError

FLOOR = 0.9
"""Not worse by more than 10 %."""
HERE = Path(__file__).resolve().parents[2]
_LEAST_LOADED = "least_loaded:metric=tokens"
_CASES = {
    "prefill_first, 8 instances": ("8", _LEAST_LOADED, "prefill_first", "conversations"),
    "chunked_prefill, 8 instances": ("8", _LEAST_LOADED, "chunked_prefill:chunk_tokens=512", "conversations"),
    "prefix_affinity, 8 instances": ("8", "prefix_affinity", "prefill_first", "prefixes"),
    "prefill_first, 64 instances": ("64", _LEAST_LOADED, "prefill_first", "conversations"),
}
Report = Callable[[str], None]


class Pair(NamedTuple):
    """One round: CPU time in reference loops, so that a machine that changes speed in between does not decide."""

    base_loops: float
    head_loops: float


def run_against(ref: str, quick: bool, report: Report = lambda _: None) -> list[Figure]:
    """Speed of this version over that of ``ref`` (a commit, branch or tag of this checkout): 1.1 is 10 % faster.

    Raises ConfigError where there is no such version.
    """
    rounds, requests = (1, 1000) if quick else (5, 10_000)
    figures = []
    with checkout(ref) as base:
        for name, case in _CASES.items():
            report(f"{name}: {ref} and this version in turns")
            run = partial(run_loops, words=(*case, str(requests)))
            figures.append(_figure(name, ref, [_pair(base, run, number) for number in range(rounds)]))
        report(f"start-up: {ref} and this version in turns")
        _pair(base, start_loops, 0)  # compiles both
        pairs = [_pair(base, start_loops, number) for number in range(rounds)]
        figures.append(_figure("`semiflow simulate`, 10 requests", ref, pairs))
    return figures


@contextmanager
def checkout(ref: str) -> Iterator[Path]:
    """A git worktree of ``ref`` in a temporary folder; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="semiflow-base-") as scratch:
        folder = Path(scratch) / "base"
        _git("worktree", "add", "--detach", str(folder), ref)
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*words: str) -> None:
    try:
        answer = subprocess.run(("git", "-C", str(HERE), *words), capture_output=True, text=True, check=False)
    except OSError as error:
        raise ConfigError(f"cannot run git: {error}") from error
    if answer.returncode:
        told = (answer.stderr.strip() or "no message").splitlines()[-1]
        raise ConfigError(f"git {words[0]} failed in {HERE}: {told}; --base needs a commit of a semiflow checkout")


def _pair(base: Path, measured: Callable[[Path], float], number: int) -> Pair:
    """Which of the two goes first changes from round to round."""
    if number % 2:
        head = measured(HERE)
        return Pair(measured(base), head)
    return Pair(measured(base), measured(HERE))


def run_loops(root: Path, words: tuple[str, ...]) -> float:
    script = Path(__file__).with_name("one_run.py")
    answer = subprocess.run(
        (sys.executable, "-P", str(script), *words), stdout=subprocess.PIPE, text=True, check=True, env=_on(root)
    )
    cpu_s, reference_s = json.loads(answer.stdout)
    return float(cpu_s / reference_s)


def start_loops(root: Path) -> float:
    sample = started((sys.executable, "-P", "-c", "from experiments.cli import main; main()", *TEN_REQUESTS), _on(root))
    return sample.cpu_s / sample.reference_s


def _on(root: Path) -> dict[str, str]:
    """The environment of a process that imports our packages from ``root``, compiled as where they are installed."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPATH": str(root)}


def _figure(name: str, ref: str, pairs: list[Pair]) -> Figure:
    return Figure(
        name=name,
        value=median(pair.base_loops / pair.head_loops for pair in pairs),
        unit="x the base's speed",
        better="higher",
        reference_loops=median(pair.head_loops for pair in pairs),
        runs=len(pairs),
        floor=FLOOR,
        note=f"base {ref}: {median(pair.base_loops for pair in pairs):.3g} loops",
    )
