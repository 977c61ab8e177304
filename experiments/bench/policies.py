"""``semiflow bench policies``: requests per CPU second with every dispatch, batch and partition policy.

Each on the first slice's bench: azure_2023_conv at eight times its rate on eight instances. Dispatch policies that look
at prefixes run on mooncake_conversation, partition policies on semi-PD instances. Batch policies also run on two
instances, where most requests wait: there an order costs most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from experiments.bench.figures import Figure, median_cpu_s, median_loops
from experiments.bench.measure import measure, on_instances
from experiments.bench.suite import MAX_TOTAL_TOKENS, RATE_SCALE
from experiments.bench.workload import conversations, shared_prefixes
from experiments.config_base import ConfigError
from policies.registry import BUILTIN

if TYPE_CHECKING:
    from experiments.config import RunConfig
    from workloads.trace import Trace

BAR = 3000.0
"""Requests per CPU second with any policy: issue 4's table."""
_PREFIX = frozenset(
    ("prefix_affinity", "cache_aware", "kv_cost", "weighted_scorers", "preble_e2", "mooncake", "locality", "deepflow")
)
_LEAST_LOADED = "least_loaded:metric=tokens"
_TENANTS = 8
_OVERLOADED = 2
Report = Callable[[str], None]


class Case(NamedTuple):
    """One run: what is measured, and on what."""

    name: str
    config: RunConfig
    workload: str
    """``conversations``, ``tenants`` (the same, of eight tenants) or ``prefixes``."""


def cases() -> Iterator[Case]:
    """Every built-in policy of the three kinds."""
    for name in BUILTIN["dispatch"]:
        workload = "prefixes" if name in _PREFIX else "conversations"
        yield Case(f"dispatch {name}", on_instances(8, name, "prefill_first"), workload)
    for instances in (8, _OVERLOADED):
        for batch in (*BUILTIN["batch"], "mlfq:batch_sequences=32"):
            workload = "tenants" if batch == "vtc" else "conversations"
            predictor = "oracle" if batch == "sjf_predicted" else "none"
            config = on_instances(instances, _LEAST_LOADED, batch, predictor=predictor)
            yield Case(f"batch {batch}, {instances} instances", config, workload)
    for name in BUILTIN["partition"]:
        config = on_instances(8, _LEAST_LOADED, "prefill_first", role="semi_pd", partition=name)
        yield Case(f"partition {name}", config, "conversations")


def run_policies(quick: bool, report: Report = lambda _: None, only: str = "") -> list[Figure]:
    """Measure every case whose name contains ``only``. ``quick``: a tenth of the requests, each case once.

    Raises ConfigError where no name does.
    """
    wanted = [case for case in cases() if only in case.name]
    if not wanted:
        raise ConfigError(f"no case has {only!r} in its name; there are: {', '.join(case.name for case in cases())}")
    runs, requests = (1, 1000) if quick else (3, 10_000)
    traces = _traces(requests)
    figures = []
    for case in wanted:
        report(case.name)
        figures.append(_figure(case, *traces[case.workload], runs))
    return figures


def _traces(requests: int) -> dict[str, tuple[Trace, str]]:
    conversation, _ = conversations(requests, RATE_SCALE, MAX_TOTAL_TOKENS)
    prefixes, _ = shared_prefixes(requests, RATE_SCALE, MAX_TOTAL_TOKENS)
    tenants = tuple(f"tenant-{row % _TENANTS}" for row in range(len(conversation.trace)))
    return {
        "conversations": (conversation.trace, conversation.label),
        "tenants": (replace(conversation.trace, tenant=tenants), f"{conversation.label} of {_TENANTS} tenants"),
        "prefixes": (prefixes.trace, prefixes.label),
    }


def _figure(case: Case, trace: Trace, label: str, runs: int) -> Figure:
    samples = [measure(case.config, trace) for _ in range(runs)]
    return Figure(
        name=case.name,
        value=len(trace) / median_cpu_s(samples),
        unit="requests/CPU s",
        better="higher",
        reference_loops=median_loops(samples),
        runs=runs,
        floor=BAR,
        note=f"{len(trace)} requests of {label}",
    )
