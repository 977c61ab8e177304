"""Tokens per CPU second against transformers' static and continuous batching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from experiments.bench import engine_hf
from experiments.bench.engine_host import BLOCK_TOKENS, Host, HostSettings
from experiments.bench.engine_load import BenchRequest, described, sharegpt_like
from experiments.bench.figures import Figure
from reference_impl.engine.model_facts import read_facts

Report = Callable[[str], None]
Run = Callable[[], float]
"""Serves the workload once; CPU seconds."""


class Grid(NamedTuple):
    """What the baselines are tuned over."""

    static: tuple[int, ...]
    """Batch sizes."""
    continuous: tuple[engine_hf.ContinuousSettings, ...]


_FULL = Grid(
    (8, 16, 32, 64),
    (
        engine_hf.ContinuousSettings(num_blocks=128, max_batch_tokens=128, page_tokens=256),
        engine_hf.ContinuousSettings(num_blocks=128, max_batch_tokens=256, page_tokens=256),
        engine_hf.ContinuousSettings(num_blocks=128, max_batch_tokens=1024, page_tokens=256),
        engine_hf.ContinuousSettings(num_blocks=512, max_batch_tokens=256, page_tokens=32),
        engine_hf.ContinuousSettings(num_blocks=1024, max_batch_tokens=512, page_tokens=32),
    ),
)
_QUICK = Grid((8, 16), (engine_hf.ContinuousSettings(num_blocks=64, max_batch_tokens=256, page_tokens=256),))


def throughput(folder: Path, quick: bool, report: Report) -> list[Figure]:
    """The baselines are tuned first; then ours and the best of each kind run in turn, and medians are compared."""
    requests = sharegpt_like(16 if quick else 64, read_facts(folder).vocab_tokens)
    tokens = sum(request.output_tokens for request in requests)
    model, grid, rounds = engine_hf.load(folder), _QUICK if quick else _FULL, 1 if quick else 3
    ours = _ours(folder, requests)
    report("throughput: tuning transformers' generate")
    static = _best({f"generate, batch {size}": _static(model, requests, size) for size in grid.static})
    report("throughput: tuning transformers' continuous batching")
    continuous = _best({_name(one): _continuous(model, requests, one) for one in grid.continuous})
    report(f"throughput: {rounds} rounds in turn")
    runs = {"ours": ours, "static": static.run, "continuous": continuous.run}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            spent[name].append(run())
    rate = {name: tokens / median(times) for name, times in spent.items()}
    note = f"{described(requests)}; baselines: {static.name} (tuned over {grid.static}), {continuous.name}"
    baseline = max(rate["static"], rate["continuous"])
    unit = "tokens/CPU s"
    return [
        Figure("throughput, ours", rate["ours"], unit, "higher", None, rounds, note=note),
        Figure(f"throughput, {static.name}", rate["static"], unit, "higher", None, rounds),
        Figure("throughput, transformers' continuous batching", rate["continuous"], unit, "higher", None, rounds),
        Figure(
            "throughput, ours over the better of the two",
            rate["ours"] / baseline,
            "x",
            "higher",
            None,
            rounds,
            floor=1.3,
            aim=1.8,
        ),
    ]


class _Tuned(NamedTuple):
    name: str
    run: Run


def _best(runs: dict[str, Run]) -> _Tuned:
    times = {name: run() for name, run in runs.items()}
    name = min(times, key=lambda one: times[one])
    return _Tuned(name, runs[name])


def _ours(folder: Path, requests: list[BenchRequest]) -> Run:
    longest = max(-(-(len(request.prompt) + request.output_tokens) // BLOCK_TOKENS) for request in requests)
    settings = HostSettings(kv_blocks=len(requests) * longest, max_sequences=len(requests))
    host = Host(folder, settings.kv_blocks)
    return lambda: host.serve(requests, settings).cpu_s


def _static(model: Any, requests: list[BenchRequest], size: int) -> Run:
    return lambda: engine_hf.static_batches(model, requests, size).cpu_s


def _continuous(model: Any, requests: list[BenchRequest], settings: engine_hf.ContinuousSettings) -> Run:
    return lambda: engine_hf.continuous(model, requests, settings).cpu_s


def _name(settings: engine_hf.ContinuousSettings) -> str:
    return (
        f"continuous batching with {settings.num_blocks} blocks of {settings.page_tokens} tokens and"
        f" {settings.max_batch_tokens} tokens a batch"
    )
