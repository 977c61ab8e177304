"""Planning ahead in virtual time, against a slow oracle that shares no code with core; and the way to an instance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.api import BatchPlan, Chunk, LaneView
from policies.registry import BUILTIN, PolicySpec
from reference_impl.core.spec import ClusterSpec, Link
from reference_impl.events import EventLog
from reference_impl.metrics import RunLog, read, rebuild
from reference_impl.metrics.tokens import check
from reference_impl.simulator import Simulation
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Times = dict[int, list[float]]
LINK = Link(bandwidth_bytes_per_s=1e7, latency_s=0.003)


class Everything:
    """All that waits and all that decodes, at once."""

    kind = "batch"
    name = "everything"

    def plan(self, lane: LaneView) -> BatchPlan:
        return BatchPlan(tuple(Chunk(s.request_id, s.target_tokens) for s in lane.waiting))


@dataclass(frozen=True)
class Undisturbed:
    """Two lanes that do not notice each other."""

    def rate(self, lane: str, own_pct: int, other_pct: int, other_busy: bool) -> float:
        return 1.0


@dataclass
class Lane:
    """The oracle's lane: every iteration takes all that there is when it is planned, at the start of the one before."""

    latency: Any
    ready_s: dict[int, float]
    prompts: dict[int, int]
    """Of those that are prefilled here; the others come with their KV."""
    context: dict[int, int]
    left: dict[int, int]
    """Tokens to come here."""
    times_s: Times = field(default_factory=dict)
    decoding: list[int] = field(default_factory=list)

    def run(self) -> Times:
        self.pending = sorted(self.ready_s, key=lambda i: (self.ready_s[i], i))
        start_s = 0.0
        now = self._plan(start_s)
        while now is not None or self.pending:
            if now is None:
                start_s = self.ready_s[self.pending[0]]
                now = self._plan(start_s)
                continue
            then = self._plan(start_s)
            duration_s, tokens = now
            start_s += duration_s
            for request in tokens:
                self.times_s.setdefault(request, []).append(start_s)
            now = then or self._plan(start_s)
        return self.times_s

    def _plan(self, at_s: float) -> tuple[float, list[int]] | None:
        """Duration and whose tokens; afterwards the state is what it will be when that is done."""
        fresh = [i for i in self.pending if round(self.ready_s[i] * 1e9) <= round(at_s * 1e9)]
        self.pending = [i for i in self.pending if i not in fresh]
        self.decoding += [i for i in fresh if i not in self.prompts]
        batch, chunks = list(self.decoding), [i for i in fresh if i in self.prompts]
        if not batch and not chunks:
            return None
        model = self.latency
        duration_s = model.base_s + model.per_decode_s * len(batch)
        for i in batch:
            self.context[i] += 1
            duration_s += model.per_context_token_s * self.context[i]
        for i in chunks:
            duration_s += model.per_chunk_token_s * self.prompts[i] + model.per_pair_s * self.prompts[i] ** 2 / 2
            self.context[i] = self.prompts[i]
        for i in (*batch, *chunks):
            self.left[i] -= 1
        self.decoding = [i for i in (*batch, *chunks) if self.left[i]]
        return duration_s, [*chunks, *batch]


def oracle(role: str, trace: Trace, latency: Any, delay_s: float) -> Times:
    """Token times of every request."""
    prompts = dict(enumerate(trace.prompt_tokens.tolist()))
    outputs = dict(enumerate(trace.output_tokens.tolist()))
    arrived_s = {i: at_s + delay_s for i, at_s in enumerate(trace.arrival_s.tolist())}
    if role == "colocated":
        return Lane(latency, arrived_s, prompts, {}, outputs).run()
    first = Lane(latency, arrived_s, prompts, {}, dict.fromkeys(prompts, 1)).run()
    ready_s = {i: times[0] for i, times in first.items() if outputs[i] > 1}
    if role == "disaggregated":
        free_s = 0.0
        for i in sorted(ready_s, key=lambda i: (ready_s[i], arrived_s[i], i)):
            free_s = ready_s[i] = max(free_s, ready_s[i]) + LINK.latency_s + prompts[i] * 1000.0 / 1e7
    rest = Lane(latency, ready_s, {}, dict(prompts), {i: outputs[i] - 1 for i in ready_s}).run()
    return {i: [*first[i], *rest.get(i, [])] for i in prompts}


@pytest.fixture
def served(tmp_path: Path) -> Callable[[ClusterSpec, Trace], RunLog]:
    """What a deployment's log says; after its instances were found clean."""

    def serve(spec: ClusterSpec, trace: Trace) -> RunLog:
        log = EventLog(None, {"schema_version": 1})
        simulation = Simulation(spec, trace, log)
        simulation.run()
        for instance in simulation.instances:
            instance.check_integrity()
            assert instance.pool.available == instance.pool.total
        pq.write_table(log.table(), tmp_path / "events.parquet")
        run = read(tmp_path / "events.parquet")
        check(run, rebuild(run))
        return run

    return serve


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    count = draw(st.integers(1, 8))
    gaps = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    return Trace(
        name="drawn",
        arrival_s=np.cumsum(np.array(gaps, np.float64)) * 2.0**-7,
        prompt_tokens=np.array(draw(st.lists(st.integers(1, 90), min_size=count, max_size=count)), np.int32),
        output_tokens=np.array(draw(st.lists(st.integers(1, 12), min_size=count, max_size=count)), np.int32),
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_planning_ahead_equals_the_oracle(deploy: Deploy, affine: Any, served: Any, data: st.DataObject) -> None:
    trace = data.draw(traces())
    role = data.draw(st.sampled_from(["colocated", "semi_pd", "disaggregated"]))
    latency = data.draw(st.sampled_from([affine(2.0**-7, 2.0**-13, 2.0**-12), affine(0.007, 1e-4, 3e-5, 1e-6, 3e-8)]))
    delay_s = data.draw(st.sampled_from([0.0, 2.0**-7, 0.0021]))
    roles = ("prefill", "decode") if role == "disaggregated" else (role,)
    spec = deploy(*roles, latency=latency, link=LINK, spec={"plan_ahead": True, "dispatch_delay_s": delay_s})
    made = [replace(i, batch=lambda seed: Everything(), contention=Undisturbed()) for i in spec.instances]
    run = served(replace(spec, instances=tuple(made)), trace)
    tokens = rebuild(run)
    for request, times in oracle(role, trace, latency, delay_s).items():
        np.testing.assert_allclose(tokens.times_s(request), times, rtol=1e-9, err_msg=f"request {request}")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_policy_can_be_asked_ahead(deploy: Deploy, affine: Any, served: Any, data: st.DataObject) -> None:
    """Short of blocks, with stale reports, on any mix of instances: what the log says adds up."""
    trace = data.draw(traces())
    roles = data.draw(st.sampled_from([("colocated",), ("semi_pd", "colocated"), ("prefill", "decode", "semi_pd")]))
    spec = deploy(
        *roles,
        batch=data.draw(st.sampled_from(sorted(BUILTIN["batch"]))),
        partition=data.draw(st.sampled_from(["none", "semi_pd:window_s=0.25"])),
        latency=affine(0.007, 1e-4, 3e-5, 1e-6, 3e-8),
        kv_blocks=data.draw(st.sampled_from([7, 12, 200])),
        max_sequences=data.draw(st.sampled_from([2, 64])),
        spec={"plan_ahead": True, "report_delay_s": data.draw(st.sampled_from([0.0, 0.03]))},
    )
    dispatch = PolicySpec.parse(data.draw(st.sampled_from(sorted(BUILTIN["dispatch"]))), "dispatch").build(1)
    run = served(replace(spec, dispatch=dispatch), trace)
    assert len(run.rows["finish"]) + len(run.rows["reject"]) == len(trace)


def test_an_arrival_waits_for_the_plan_after_the_one_made_ahead(
    deploy: Deploy, requests: Callable[..., Trace], served: Any
) -> None:
    trace = requests((0.0, 100, 50), (0.0451, 100, 2))
    behind, ahead = (served(deploy("colocated", spec={"plan_ahead": on}), trace) for on in (False, True))
    # the first prompt takes 0 to 0.02, a decode 0.01; at 0.04 the iteration from 0.05 on is planned
    assert behind.rows["admit"].floats("time_s")[1] == pytest.approx(0.05)
    assert ahead.rows["admit"].floats("time_s")[1] == pytest.approx(0.06)


def test_a_dispatched_request_reaches_its_instance_later(
    deploy: Deploy, requests: Callable[..., Trace], served: Any
) -> None:
    run = served(deploy("colocated", spec={"dispatch_delay_s": 0.25}), requests((1.0, 100, 2)))
    times_s = [run.rows[kind].floats("time_s")[0] for kind in ("arrive", "dispatch", "admit", "prefilled")]
    assert times_s == pytest.approx([1.0, 1.0, 1.25, 1.27])


def test_what_is_on_its_way_to_an_instance_is_not_its_load_yet(
    deploy: Deploy, requests: Callable[..., Trace], served: Any
) -> None:
    trace = requests((0.0, 100, 9), (0.001, 100, 9), (0.3, 100, 9), (0.4, 100, 99), (0.6, 100, 9))
    run = served(deploy("colocated", "colocated", spec={"dispatch_delay_s": 0.1}), trace)
    assert run.rows["dispatch"].ints("instance").tolist() == [0, 0, 0, 0, 1]


def test_a_negative_dispatch_delay_is_refused(deploy: Deploy) -> None:
    with pytest.raises(ValueError, match="dispatch_delay_s is -1; allowed: a finite number, 0 or more"):
        deploy("colocated", spec={"dispatch_delay_s": -1})
