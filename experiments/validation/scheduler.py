"""Our ``unified_budget`` beside vLLM's own scheduler: the same requests, the same limits, step by step.

Both are clockless: a request arrives before the same iteration in both, so what is compared is decisions and memory
alone. Ours are read from the simulator's event log, every iteration stepped; vLLM's come from its ``Scheduler`` class
(``in_vllm.py``, run by an interpreter that has vLLM; no GPU).
"""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.config_base import ConfigError
from experiments.validation.simulated import instance_of, simulated
from experiments.vllm_run import Record, read_requests, read_settings
from reference_impl.latency.errors import reason

if TYPE_CHECKING:
    from reference_impl.core.spec import InstanceSpec
    from reference_impl.metrics import RunLog


class Step(NamedTuple):
    """One iteration, when it has been planned."""

    running: int
    waiting: int
    used_blocks: int
    """KV blocks that running requests hold."""
    tokens: int
    """Tokens that it computes."""
    preempted: tuple[int, ...]
    """Requests, by order of arrival, ascending."""


@dataclass(frozen=True)
class Lockstep:
    """Both sequences of steps over one workload."""

    kv_blocks: int
    prefix_caching: bool
    asynchronous: bool
    vllm_version: str
    needed_tokens: int
    """Tokens to compute without any preemption: of each request all but the last one."""
    ours: list[Step]
    vllm: list[Step]

    def facts(self) -> dict[str, Any]:
        """What the comparison says; ready for JSON."""
        pairs = list(zip_longest(self.ours, self.vllm))
        apart = [number for number, (ours, vllm) in enumerate(pairs) if ours != vllm]
        return {
            "kv_blocks": self.kv_blocks,
            "prefix_caching": self.prefix_caching,
            "asynchronous": self.asynchronous,
            "vllm": self.vllm_version,
            "steps": {"ours": len(self.ours), "vllm": len(self.vllm)},
            "steps_that_differ": len(apart),
            "first_that_differs": apart[0] if apart else None,
            "preemptions": self._both(lambda steps: sum(len(step.preempted) for step in steps)),
            "recomputed_tokens": self._both(lambda steps: sum(step.tokens for step in steps) - self.needed_tokens),
            "largest_difference": {
                name: max((abs(getattr(a, name) - getattr(b, name)) for a, b in pairs if a and b), default=0)
                for name in ("running", "waiting", "used_blocks")
            },
            "mean_absolute_difference_of_kv_use_pct": 100
            * sum(abs(a.used_blocks - b.used_blocks) for a, b in pairs if a and b)
            / max(1, min(len(self.ours), len(self.vllm)))
            / self.kv_blocks,
        }

    def _both(self, count: Callable[[list[Step]], int]) -> dict[str, int]:
        return {"ours": count(self.ours), "vllm": count(self.vllm)}


def lockstep(
    folder: str | Path,
    python: str,
    *,
    kv_blocks: int | None = None,
    prefix_caching: bool | None = None,
    asynchronous: bool = False,
) -> Lockstep:
    """Run the requests in ``folder`` through both schedulers, with the run's settings except for those given.

    ``python``: an interpreter that can import vLLM. ``asynchronous``: vLLM's plans are made one iteration ahead; ours
    never are. Raises ConfigError and ProfileError.
    """
    root = Path(folder)
    settings, record = read_settings(root / "meta.json"), read_requests(root / "requests.jsonl")
    given = instance_of(root, settings)
    caching = given.prefix_caching if prefix_caching is None else prefix_caching
    instance = replace(given, kv_blocks=kv_blocks or given.kv_blocks, prefix_caching=caching)
    run = simulated(instance, record, fast=False)
    version, theirs = in_vllm(task_of(instance, record, run, asynchronous=asynchronous), python)
    return Lockstep(
        kv_blocks=instance.kv_blocks,
        prefix_caching=caching,
        asynchronous=asynchronous,
        vllm_version=version,
        needed_tokens=int((record.prompt_tokens + record.output_tokens - 1).sum()),
        ours=steps_of(run),
        vllm=theirs,
    )


def steps_of(run: RunLog) -> list[Step]:
    """The iterations of a log of one instance in which each is a row."""
    from reference_impl.metrics import sampled

    runs, dropped = run.rows["run"], run.rows["preempt"]
    start_s = runs.floats("start_s")
    now = sampled(run, start_s)
    preempted: dict[float, list[int]] = {}
    for time_s, request in zip(dropped.floats("time_s").tolist(), dropped.ints("request").tolist(), strict=True):
        preempted.setdefault(time_s, []).append(request)
    tokens = (runs.ints("tokens") + runs.ints("batch")).tolist()
    counts = [column.astype(int).tolist() for column in (now.running, now.waiting, runs.ints("kv_blocks"))]
    gone = [tuple(sorted(preempted.get(time_s, ()))) for time_s in start_s.tolist()]
    return list(map(Step._make, zip(*counts, tokens, gone, strict=True)))


def task_of(instance: InstanceSpec, record: Record, run: RunLog, *, asynchronous: bool = False) -> dict[str, Any]:
    """What ``in_vllm.py`` reads: limits, and for each request its first iteration, prompt and output tokens."""
    import numpy as np

    first = np.searchsorted(run.rows["run"].floats("start_s"), record.queued_s, side="left")
    rows = zip(first.tolist(), record.prompt_tokens.tolist(), record.output_tokens.tolist(), strict=True)
    return {
        "max_num_seqs": instance.max_sequences,
        "max_num_batched_tokens": instance.max_batch_tokens,
        "block_tokens": instance.block_tokens,
        "kv_blocks": instance.kv_blocks,
        "prefix_caching": instance.prefix_caching,
        "asynchronous": asynchronous,
        "requests": [list(row) for row in rows],
    }


def in_vllm(task: dict[str, Any], python: str) -> tuple[str, list[Step]]:
    """vLLM's version and its steps. Raises ConfigError where the interpreter cannot run its scheduler."""
    script = Path(__file__).with_name("in_vllm.py")
    try:
        answer = subprocess.run(
            [python, str(script)], input=json.dumps(task), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise ConfigError(
            f"cannot run {python}: {reason(error)}; give --python an interpreter that has vLLM"
        ) from error
    if answer.returncode:
        last = (answer.stderr.strip() or "no message").splitlines()[-1]
        raise ConfigError(f"{python} cannot run vLLM's scheduler: {last}; give --python an interpreter that has vLLM")
    found = json.loads(answer.stdout.splitlines()[-1])
    return found["version"], [Step._make([*row[:4], tuple(row[4])]) for row in found["rows"]]


def write_steps(steps: Sequence[Step], path: Path) -> None:
    """One row a step; preempted requests separated by spaces. Raises ConfigError."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(Step._fields)
            table.writerows((*step[:4], " ".join(map(str, step.preempted))) for step in steps)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error


def read_steps(path: Path) -> list[Step]:
    """What :func:`write_steps` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return [Step._make([*map(int, row[:4]), tuple(map(int, row[4].split()))]) for row in rows]
