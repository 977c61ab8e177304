"""The cases of issue 2's table, in its order."""

from __future__ import annotations

from collections.abc import Callable

from experiments.bench import processes, scale
from experiments.bench.figures import Figure, median_cpu_s, median_loops
from experiments.bench.measure import colocated, measure
from experiments.bench.workload import BenchWorkload, conversations, shared_prefixes

RATE_SCALE = 8.0
MAX_TOTAL_TOKENS = 4096
Report = Callable[[str], None]


def run_suite(quick: bool, report: Report = lambda _: None) -> list[Figure]:
    """Measure everything; ``report`` is told what comes next. ``quick``: fewer requests, no million, for a glance."""
    runs, requests = 3, 1000 if quick else 10_000
    report("start-up")
    figures = processes.startup(runs)
    report("trace reading")
    conversation, read_conversation = conversations(requests, RATE_SCALE, MAX_TOTAL_TOKENS)
    prefixes, read_prefixes = shared_prefixes(requests, RATE_SCALE, MAX_TOTAL_TOKENS)
    figures += [read_conversation, read_prefixes]
    for case in (
        ("prefill_first", "least_loaded:metric=tokens", "prefill_first", conversation, 10_000.0, 30_000.0),
        ("chunked_prefill", "least_loaded:metric=tokens", "chunked_prefill:chunk_tokens=512", conversation, 8e3, 15e3),
        ("prefix_affinity", "prefix_affinity", "prefill_first", prefixes, 4_000.0, 10_000.0),
    ):
        report(case[0])
        figures.append(_throughput(*case, runs=runs))
    report("64 instances against 8")
    load = scale.seventy_percent(conversation.trace)
    figures.append(scale.cost_ratio(conversation, load, runs, per_instance=requests // 8))
    if not quick:
        report("1,000,000 requests over 64 instances, 3 runs")
        figures += processes.million(runs, load)
    return figures


def _throughput(
    name: str, dispatch: str, batch: str, workload: BenchWorkload, floor: float, aim: float, *, runs: int
) -> Figure:
    config = colocated(8, dispatch, batch)
    samples = [measure(config, workload.trace) for _ in range(runs)]
    return Figure(
        name=f"{name}, 8 instances",
        value=len(workload.trace) / median_cpu_s(samples),
        unit="requests/CPU s",
        better="higher",
        reference_loops=median_loops(samples),
        runs=runs,
        floor=floor,
        aim=aim,
        note=f"{workload.label}; {dispatch}; {batch}",
    )
