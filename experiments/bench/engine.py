"""The engine's part of issue 3's table: exactness, throughput, overhead, memory. Needs the extra ``serve``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from experiments.bench.engine_decode import decode_overhead
from experiments.bench.engine_exact import exactness
from experiments.bench.engine_memory import weights_memory
from experiments.bench.engine_speed import throughput
from experiments.bench.figures import Figure
from reference_impl.engine.weights import ModelSource, ensure_weights

MODEL = "llama-30m"


def run_engine_suite(quick: bool, report: Callable[[str], None] = lambda _: None) -> list[Figure]:
    """Measure everything, one torch thread; ``quick``: fewer requests and one round, for a glance."""
    with tempfile.TemporaryDirectory(prefix="semiflow-bench-") as cache:
        report(f"weights of {MODEL}")
        folder = ensure_weights(ModelSource(MODEL), Path(cache))
        report("exactness against generate")
        figures = exactness(folder, quick)
        figures += throughput(folder, quick, report)
        report("decode iterations against bare forwards")
        figures += decode_overhead(folder, quick)
        report("memory of the weights")
        return [*figures, weights_memory(folder)]
