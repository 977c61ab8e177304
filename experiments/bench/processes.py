"""What is measured in processes of its own: start-up, imports, and the run of a million requests with its memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from experiments.bench.figures import Figure, Sample, median_cpu_s, median_loops
from experiments.bench.reference import reference_cpu_s
from experiments.bench.scale import Load

TEN_REQUESTS = (
    *("simulate", "--trace", "bundled:sharegpt-like", "--instances", "8", "--max-requests", "10", "--rate", "8"),
    *("--slo", "ttft=1.0,tpot=0.1", "--json"),
)
_ENTRY = "from experiments.cli import main; main()"
_IMPORTS = "import reference_impl.simulator, reference_impl.events, policies.registry, workloads.catalog"


class Child(NamedTuple):
    """A finished process: what it cost, what it printed."""

    sample: Sample
    wall_s: float
    output: str


def startup(runs: int) -> list[Figure]:
    """`semiflow simulate` with 10 requests, whole process; and the imports of the simulator alone."""
    whole = [_child((sys.executable, "-c", _ENTRY, *TEN_REQUESTS)) for _ in range(runs)]
    imports = [_child((sys.executable, "-c", _IMPORTS)) for _ in range(runs)]
    wall = f"wall clock {median(child.wall_s for child in whole):.2f} s"
    return [
        _process_figure("`semiflow simulate`, 10 requests", whole, floor=1.5, aim=0.8, note=wall),
        _process_figure("of that: interpreter and imports", imports),
    ]


def million(runs: int, load: Load) -> list[Figure]:
    """1,000,000 requests over 64 instances; CPU seconds and peak memory of the process."""
    rate = repr(load.per_instance_rps)
    command = (sys.executable, "-m", "experiments.bench.million", rate)
    answers = [json.loads(_child(command).output) for _ in range(runs)]
    samples = [Sample(answer["cpu_s"], answer["reference_s"]) for answer in answers]
    name, note = "1,000,000 requests, 64 instances", f"{answers[0]['note']}; {float(rate):.2f} requests/s per instance"
    time_figure = Figure(
        name, median_cpu_s(samples), "CPU s", "lower", median_loops(samples), runs, floor=120.0, aim=45.0, note=note
    )
    peak = median(answer["peak_rss_bytes"] for answer in answers)
    return [time_figure, Figure(f"{name}: peak memory", peak / 1e9, "GB", "lower", None, runs, floor=2.0, aim=1.0)]


def _process_figure(
    name: str, children: Sequence[Child], floor: float | None = None, aim: float | None = None, note: str = ""
) -> Figure:
    samples = [child.sample for child in children]
    cpu_s, loops = median_cpu_s(samples), median_loops(samples)
    return Figure(name, cpu_s, "CPU s", "lower", loops, len(samples), floor=floor, aim=aim, note=note)


def started(command: Sequence[str], environment: Mapping[str, str]) -> Sample:
    """CPU seconds of a process with this environment."""
    return _child(command, environment).sample


def _child(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
    reference_s = reference_cpu_s()
    before, begun = _children_cpu_s(), time.perf_counter()
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    wall_s = time.perf_counter() - begun
    return Child(Sample(_children_cpu_s() - before, reference_s), wall_s, answer.stdout)


def _children_cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
