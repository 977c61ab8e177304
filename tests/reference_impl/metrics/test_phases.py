"""Phases follow one another without a gap, and their breakdown adds up to the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_impl.core.spec import ClusterSpec, Link
from reference_impl.events import Event, EventLog
from reference_impl.metrics import EventLogError, RunLog, per_request, read
from reference_impl.metrics.breakdown import PARTS, Breakdown
from reference_impl.metrics.phases import Phases
from reference_impl.simulator import simulate
from workloads.trace import Trace

MakeRun = Callable[..., RunLog]
SECOND = 1_000_000_000


def told(run: RunLog, request: int) -> list[tuple[str, float, float]]:
    return [(phase.name, phase.start_s, phase.end_s) for phase in Phases(run).of(request)]


def parts(run: RunLog, request: int) -> dict[str, float]:
    return {name: ns / SECOND for name, ns in Breakdown(run, Phases(run)).ns(request).items()}


def simulated(spec: ClusterSpec, trace: Trace) -> RunLog:
    roles = [{"id": i, "role": instance.role, "kv_blocks": 1} for i, instance in enumerate(spec.instances)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        with EventLog(path, {"schema_version": 1, "instances": roles}) as log:
            simulate(spec, trace, log)
        return read(path)


def test_a_decode_beside_which_a_prompt_is_computed_alone_stalls(
    make_run: MakeRun, two_requests: Sequence[Event]
) -> None:
    run = make_run(two_requests)
    assert told(run, 0) == [("queue", 0.0, 0.25), ("prefill", 0.25, 1.0), ("decode", 1.0, 3.75)]
    assert parts(run, 0) == {"queue": 0.25, "prefill": 0.75, "decode": 2.25, "decode_stall": 0.5}
    assert parts(run, 1) == {"queue": 0.75, "prefill": 0.5, "decode": 0.25}


def test_iterations_with_prompts_beside_are_told_apart(make_run: MakeRun) -> None:
    events = [
        Event(0.0, "arrive", 0, tokens=8),
        Event(0.5, "dispatch", 0, 0),
        Event(0.5, "admit", 0, 0, tokens=0),
        Event(1.0, "prefilled", 0, 0, tokens=1),
        Event(1.0, "run", None, 0, "mixed", 8, 0, 0.5, 1, 1.0),
        Event(2.0, "run", None, 0, "mixed", 8, 1, 1.0, 1, 2.0),
        Event(2.25, "finish", 0, 0, tokens=3),
        Event(2.25, "run", None, 0, "mixed", 0, 1, 2.0, 1, 2.25),
    ]
    found = {"dispatch_wait": 0.5, "prefill": 0.5, "decode": 0.25, "decode_beside_prompts": 1.0}
    assert parts(make_run(events), 0) == found


def test_a_hand_over_waits_and_moves(deploy: Callable[..., ClusterSpec], requests: Callable[..., Trace]) -> None:
    """100 tokens: prefill 20 ms; 1000 bytes a token over 1e6 bytes/s: 100 ms; 2 decode iterations of 10 ms. The link is
    busy for the second one, whose prompt is ready at the same moment."""
    link = Link(1e6, 0.0)
    run = simulated(deploy("prefill", "decode", link=link), requests((0.0, 100, 3), (0.0, 100, 3)))
    first, second = parts(run, 0), parts(run, 1)
    assert first == pytest.approx({"prefill": 0.03, "transfer": 0.1, "decode": 0.02})
    assert second == pytest.approx({"prefill": 0.03, "handover_wait": 0.1, "transfer": 0.1, "decode": 0.02})


def test_a_preempted_request_waits_and_is_computed_again(
    deploy: Callable[..., ClusterSpec], requests: Callable[..., Trace]
) -> None:
    run = simulated(deploy("colocated", kv_blocks=6), requests((0.0, 32, 40), (0.0, 32, 40)))
    again = next(request for request in (0, 1) if any(name == "preempted" for name, _, _ in told(run, request)))
    names = [name for name, _, _ in told(run, again)]
    assert names[:2] == ["prefill", "decode"]
    assert names[2:5] == ["preempted", "recompute", "decode"]


def test_a_client_sees_less(make_run: MakeRun) -> None:
    events = [
        Event(1.0, "arrive", 0, tokens=8),
        Event(1.5, "token", 0, tokens=1),
        Event(2.5, "token", 0, tokens=2),
        Event(2.5, "finish", 0, tokens=2),
    ]
    run = make_run(events, clock="client", instances=[])
    assert parts(run, 0) == {"until_first_token": 0.5, "streaming": 1.0}


def test_lost_with_its_instance(make_run: MakeRun) -> None:
    events = [
        Event(0.0, "arrive", 0, tokens=8),
        Event(0.0, "dispatch", 0, 0),
        Event(0.0, "admit", 0, 0, tokens=0),
        Event(0.5, "lost", 0, 0, tokens=0),
        Event(0.75, "dispatch", 0, 1),
        Event(1.0, "admit", 0, 1, tokens=0),
        Event(2.0, "prefilled", 0, 1, tokens=1),
        Event(2.0, "finish", 0, 1, tokens=1),
        Event(2.0, "run", None, 1, "mixed", 8, 0, 1.0, 1, 2.0),
    ]
    run = make_run(events)
    assert told(run, 0) == [
        *(("prefill", 0.0, 0.5), ("lost", 0.5, 0.75), ("lost", 0.75, 1.0), ("recompute", 1.0, 2.0)),
    ]
    assert parts(run, 0) == {"prefill_stall": 0.5, "lost": 0.5, "recompute": 1.0}


def test_a_request_that_never_arrived_is_named(make_run: MakeRun, two_requests: Sequence[Event]) -> None:
    with pytest.raises(EventLogError, match="request 7 is not in the event log; it holds requests 0 to 1"):
        Phases(make_run(two_requests)).of(7)


FLEETS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("colocated",), {"batch": "chunked_prefill:chunk_tokens=64"}),
    (("colocated", "colocated"), {"batch": "unified_budget"}),
    (("prefill", "decode"), {"batch": "prefill_first"}),
    (("semi_pd",), {"partition": "semi_pd:window_s=0.25"}),
    (("colocated",), {"batch": "mlfq:batch_sequences=2,base_quantum_s=0.03,starvation_s=0.5,levels=4"}),
    (("colocated",), {"batch": "unified_budget", "spec": {"plan_ahead": True}}),
]


@settings(max_examples=24, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(FLEETS),
    st.integers(20, 60),
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 200), st.integers(1, 30)), min_size=2, max_size=14),
)
def test_phases_have_no_gap_and_the_breakdown_sums_exactly(
    deploy: Callable[..., ClusterSpec],
    requests: Callable[..., Trace],
    fleet: tuple[tuple[str, ...], dict[str, Any]],
    kv_blocks: int,
    rows: list[tuple[float, int, int]],
) -> None:
    roles, options = fleet
    gaps, prompts, outputs = zip(*rows, strict=True)
    trace = requests(*zip(np.cumsum(gaps).tolist(), prompts, outputs, strict=True))
    run = simulated(deploy(*roles, kv_blocks=kv_blocks, **options), trace)
    table, phases = per_request(run), Phases(run)
    breakdown = Breakdown(run, phases)
    for at, request in enumerate(table.request.tolist()):
        found = phases.of(request)
        assert all(before.end_s == after.start_s for before, after in pairwise(found))
        if table.finished[at]:
            arrival, finish = float(table.arrival_s[at]), float(table.finish_s[at])
            assert (found[0].start_s, found[-1].end_s) == (arrival, finish)
            ns = breakdown.ns(request)
            assert sum(ns.values()) == round(finish * SECOND) - round(arrival * SECOND)
            assert set(ns) <= set(PARTS)
            assert all(part > 0 for part in ns.values())
