"""The recorded workloads of the benchmark, or look-alikes that say so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from experiments.bench.figures import Figure

if TYPE_CHECKING:
    from workloads.trace import Trace


class BenchWorkload(NamedTuple):
    """A trace in memory, and what it is."""

    trace: Trace
    label: str


def conversations(requests: int, rate_scale: float, max_total_tokens: int) -> tuple[BenchWorkload, Figure]:
    """The first requests of azure_2023_conv, and how long reading took."""
    return _first("azure_2023_conv", "bundled:azure-conv-like", requests, rate_scale, max_total_tokens)


def shared_prefixes(requests: int, rate_scale: float, max_total_tokens: int) -> tuple[BenchWorkload, Figure]:
    """The first requests of mooncake_conversation, and how long reading took."""
    return _first("mooncake_conversation", "bundled:shared-prefix", requests, rate_scale, max_total_tokens)


def _first(
    name: str, look_alike: str, requests: int, rate_scale: float, max_total_tokens: int
) -> tuple[BenchWorkload, Figure]:
    from workloads.catalog import entry, find, open_trace

    at_hand = find(entry(name)) is not None
    chosen = name if at_hand else f"{look_alike}:requests={requests}"
    label = name if at_hand else f"{look_alike} (synthetic: {name} is not at hand)"
    started = time.process_time()
    trace = open_trace(chosen, invalid="drop")
    reading_s = time.process_time() - started
    trace = trace.head(requests).scale_rate(rate_scale).clip_total_tokens(max_total_tokens)
    figure = Figure(f"reading {chosen}", reading_s, "CPU s", "lower", None, 1, note=f"{len(trace)} requests used")
    return BenchWorkload(trace, label), figure
