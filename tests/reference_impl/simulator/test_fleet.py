"""Instances fail, recover, become slow and change their role: nothing is lost, and closed forms stay exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.registry import PolicySpec
from reference_impl.core.fleet_events import ChangeRole, Fail, FleetEvent, Recover, Slow, check_schedule
from reference_impl.core.spec import ClusterSpec, Link
from reference_impl.events import EventLog
from reference_impl.metrics import read, summarise
from reference_impl.simulator import Simulation
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Rows = list[dict[str, Any]]
TOLERANCE = 1e-9


def simulate(spec: ClusterSpec, trace: Trace, *, fast: bool = True, path: Path | None = None) -> Rows:
    """Run it; every request ends once, and nothing is left on any instance. The rows are in memory or at ``path``."""
    with EventLog(path, {"schema_version": 1}) as log:
        simulation = Simulation(spec, trace, log, fast=fast)
        summary = simulation.run()
        assert summary.finished + summary.rejected == len(trace)
        for instance in simulation.instances:
            instance.check_integrity()
            if instance.state != "failed":
                assert instance.pool.available == instance.pool.total
        if path is not None:
            return []
        rows: Rows = log.table().to_pylist()
    ends = [row["request"] for row in rows if row["kind"] in ("finish", "reject")]
    assert sorted(ends) == list(range(len(trace))), "each request ends once"
    assert all(row["tokens"] == simulation.outputs[row["request"]] for row in rows if row["kind"] == "finish")
    return rows


def moments(rows: Rows) -> dict[tuple[Any, ...], list[tuple[float, Any]]]:
    """Every event and every end of an iteration, whatever rows they stand in."""
    found: dict[tuple[Any, ...], list[tuple[float, Any]]] = {}
    for row in rows:
        if row["kind"] == "run":
            steps = np.arange(row["iterations"])
            ends = row["first_end_s"] + np.maximum(steps, 0) * row["step_s"] + row["growth_s"] * steps * (steps - 1) / 2
            found.setdefault(("run", row["instance"], row["lane"]), []).extend((end, row["batch"]) for end in ends)
        else:
            key = (row["kind"], row["request"], row["instance"], row["lane"])
            found.setdefault(key, []).append((row["time_s"], row["tokens"]))
    return found


def assert_same(fast: Rows, plain: Rows) -> None:
    left, right = moments(fast), moments(plain)
    assert left.keys() == right.keys()
    for key, expected in right.items():
        assert [label for _, label in left[key]] == [label for _, label in expected], key
        times = [[at_s for at_s, _ in side] for side in (left[key], expected)]
        np.testing.assert_allclose(*times, rtol=TOLERANCE, atol=TOLERANCE, err_msg=str(key))


ROLES = [("colocated", "colocated"), ("semi_pd", "colocated"), ("prefill", "decode", "decode"), ("prefill", "decode")]


@st.composite
def schedules(draw: st.DrawFn, roles: Sequence[str]) -> tuple[FleetEvent, ...]:
    """Events that can happen, of any kind, at any place, in the busy part of the run; some at one moment."""
    events: list[FleetEvent] = []
    failed: set[int] = set()
    now_s = 0.0
    for _ in range(draw(st.integers(1, 6))):
        now_s += draw(st.sampled_from([0.0, 0.011, 2.0**-6, 0.05, 0.3]))
        place = draw(st.integers(0, len(roles) - 1))
        startup_s = draw(st.sampled_from([0.0, 0.04, 0.5]))
        kind = draw(st.sampled_from(["fail", "fail", "slow", "role"]))
        if place in failed:
            failed.discard(place)
            events.append(Recover(now_s, place, startup_s))
        elif kind == "fail":
            failed.add(place)
            events.append(Fail(now_s, place))
        elif kind == "slow":
            events.append(Slow(now_s, place, draw(st.sampled_from([0.5, 1.0, 2.0, 3.7]))))
        else:
            events.append(ChangeRole(now_s, place, draw(st.sampled_from(["prefill", "decode", "colocated"])), startup_s))
    return tuple(events)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    count = draw(st.integers(1, 10))
    steps = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    prompts = draw(st.lists(st.integers(1, 150), min_size=count, max_size=count))
    outputs = draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))
    ids = tuple(tuple(100 * (i % 3) + j for j in range(-(-prompts[i] // 32))) for i in range(count))
    return Trace(
        "drawn",
        np.cumsum(np.array(steps, np.float64)) * draw(st.sampled_from([2.0**-7, 0.0123])),
        np.array(prompts, np.int32),
        np.array(outputs, np.int32),
        prefix_ids=ids,
        prefix_block_tokens=32,
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_schedule_loses_a_request_and_closed_forms_equal_plain_stepping(
    deploy: Deploy, affine: Any, tmp_path: Path, data: st.DataObject
) -> None:
    roles = data.draw(st.sampled_from(ROLES))
    events = data.draw(schedules(roles))
    trace = data.draw(traces())
    period_s, delay_s = data.draw(st.sampled_from([(None, 0.0), (None, 0.03), (0.05, 0.02)]))
    host = {
        "events": events,
        "report_period_s": period_s,
        "report_delay_s": delay_s,
        "dispatch_delay_s": data.draw(st.sampled_from([0.0, 0.015])),
        "plan_ahead": data.draw(st.sampled_from([False, False, True])),
    }
    options: dict[str, Any] = {
        "batch": data.draw(st.sampled_from(["prefill_first", "unified_budget:token_budget=96", "chunked_prefill"])),
        "latency": affine(0.007, 1e-4, 3e-5, 1.1e-6),
        "kv_blocks": data.draw(st.sampled_from([14, 24, 400])),
        "link": Link(2e6, 1e-3),
        "spec": host,
    }
    dispatch = data.draw(st.sampled_from(["round_robin", "least_loaded", "kv_cost"]))

    def spec() -> ClusterSpec:
        return deploy(*roles, dispatch=dispatch, **options)

    assert_same(simulate(spec(), trace), simulate(spec(), trace, fast=False))
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        simulate(spec(), trace, path=path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    summarise(read(paths[0]))  # its tokens add up
