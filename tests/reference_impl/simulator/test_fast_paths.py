"""Closed-form runs and rate-based lanes give the very events of plain stepping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.api import BatchPlan, Chunk, ClusterView, Dispatch, LaneView, Reject, RequestView
from policies.registry import PolicySpec
from reference_impl.core.spec import ClusterSpec
from reference_impl.events import EventLog
from reference_impl.latency.devices import hardware
from reference_impl.latency.hf_config import model
from reference_impl.latency.linear import DecodeFit, Linear
from reference_impl.latency.roofline import Roofline
from reference_impl.latency.table import Table
from reference_impl.simulator import Simulation, Summary
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Points = dict[tuple[Any, ...], list[tuple[float, int | None]]]
TOLERANCE = 1e-9

KINKED = {
    (sequences, prefill, read): 0.005
    + 1e-4 * prefill
    + 2e-4 * sequences
    + 1e-5 * max(read, 150)
    + 3e-6 * max(read - 400, 0)
    for sequences in (1, 4, 16)
    for prefill in (0, 32, 256)
    for read in (0, 100, 150, 300, 400, 1000)
}
BATCH = [
    "prefill_first",
    "unified_budget",
    "unified_budget:token_budget=96,long_prefill_token_threshold=40",
    "chunked_prefill:chunk_tokens=64",
    "decode_first",
    "whole_prompts:token_budget=150,max_pauses=2",
    "edf_slack:ttft_s=0.2",
    "sjf_predicted:aging_tokens_per_s=50",
    "priority:classes=b/a,token_budget=96",
    "mlfq:starvation_s=0.5",
    "mlfq:batch_sequences=2,base_quantum_s=0.03,starvation_s=0.5,levels=4",
    "vtc",
    "vtc:token_budget=64",
    "fussy",
]
DISPATCH = ["round_robin", "random", "least_loaded:metric=kv", "power_of_two", "prefix_affinity", "choosy"]
DISPATCH += ["splitwise_mixed:prompt_queue_tokens=150"]  # hands over between colocated instances
ROLES = [
    ("colocated",),
    ("colocated", "colocated"),
    ("semi_pd",),
    ("semi_pd", "colocated"),
    ("prefill", "decode"),
    ("prefill", "decode", "semi_pd"),
]
FUSSY = "fussy"
"""A batch policy of the tests' own, see Fussy."""
PARTITION = [
    "none",
    "static_share:prefill_pct=40,decode_pct=60",
    "semi_pd:window_s=0.25",
    "pdmux_table:window_s=0.1,decode_bs_divisor=3",
    "nexus_greedy:window_s=0.1,kv_switch=0.5",
]


class Fussy:
    """Every odd thing that a plan may say, decided by the state alone."""

    kind = "batch"
    name = FUSSY

    def plan(self, lane: LaneView) -> BatchPlan:
        chunk = self._chunk(lane)
        skip = frozenset(
            s.request_id for s in (*lane.decodes, *lane.paused) if (s.generated_tokens + s.request_id) % 7 == 1
        )
        if len(skip) == len(lane.decodes) + len(lane.paused):
            skip = frozenset()  # somebody must go on
        victims = [s.request_id for s in lane.decodes if s.generated_tokens % 11 == 10 and len(lane.decodes) > 2]
        preempt = tuple(victims[:1])
        room = lane.free_blocks - lane.decode_blocks
        chunks = (chunk,) if chunk and self._fits(lane, chunk, room) else ()
        return BatchPlan(chunks, skip=skip - set(preempt), preempt=preempt)

    def _chunk(self, lane: LaneView) -> Chunk | None:
        for sequence in (*lane.prefilling, *lane.waiting):
            return Chunk(sequence.request_id, min(lane.uncomputed_tokens(sequence), 48))
        return None

    def _fits(self, lane: LaneView, chunk: Chunk, room: int) -> bool:
        sequence = next(s for s in (*lane.prefilling, *lane.waiting) if s.request_id == chunk.request_id)
        admits = sequence.computed_tokens == 0
        if admits and lane.running_sequences >= lane.max_sequences:
            return False
        whole = lane.uncomputed_tokens(sequence) if admits else chunk.tokens
        return lane.blocks_needed(sequence, whole) <= room


class Choosy:
    """Dispatches to the least busy instance, leaves requests queued while all are busy, refuses some at hand-over."""

    kind = "dispatch"
    name = "choosy"

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch | Reject | None:
        view = min(cluster.instances, key=lambda known: (known.outstanding_requests, known.instance_id))
        if view.outstanding_requests > 2:
            return None
        if cluster.phase == "decode" and request.prompt_tokens % 5 == 0:
            return Reject("not to my liking")
        return Dispatch(view.instance_id, reason="to my liking")


def run(spec: ClusterSpec, trace: Trace, *, fast: bool) -> tuple[Summary, Points]:
    log = EventLog(None)
    simulation = Simulation(spec, trace, log, fast=fast)
    summary = simulation.run()
    for instance in simulation.instances:
        instance.check_integrity()
        assert instance.pool.available == instance.pool.total
    assert_every_token_once(simulation, log)
    return summary, points(log)


def assert_every_token_once(simulation: Simulation, log: EventLog) -> None:
    """What a reader rebuilds from the run rows is what the request rows say."""
    finished = [row for row in log.table().to_pylist() if row["kind"] == "finish"]
    assert len({row["request"] for row in finished}) == len(finished) == simulation.finished
    assert all(row["tokens"] == simulation.outputs[row["request"]] for row in finished)


def points(log: EventLog) -> Points:
    """Every event and every end of an iteration, whatever rows they stand in."""
    found: Points = {}
    for row in log.table().to_pylist():
        if row["kind"] == "run":
            ends = found.setdefault(("iteration", row["instance"], row["lane"]), [])
            later = row["iterations"] - 1
            ends.append((row["first_end_s"], row["batch"]))
            ends += [
                (row["first_end_s"] + j * row["step_s"] + row["growth_s"] * j * (j - 1) / 2, row["batch"])
                for j in range(1, later + 1)
            ]
            assert ends[-1][0] == pytest.approx(row["time_s"], rel=TOLERANCE)
        else:
            key = (row["kind"], row["request"], row["instance"])
            found.setdefault(key, []).append((row["time_s"], row["tokens"]))
    return found


def assert_same(fast: Points, plain: Points) -> None:
    assert fast.keys() == plain.keys()
    for key, expected in plain.items():
        got = fast[key]
        assert [label for _, label in got] == [label for _, label in expected], key
        np.testing.assert_allclose(
            [at_s for at_s, _ in got], [at_s for at_s, _ in expected], rtol=TOLERANCE, atol=TOLERANCE, err_msg=str(key)
        )


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Few requests, much overlap; arrivals on a coarse grid meet iteration boundaries exactly."""
    count = draw(st.integers(1, 14))
    steps = draw(st.lists(st.integers(0, 24), min_size=count, max_size=count))
    grid_s = draw(st.sampled_from([2.0**-7, 0.01, 0.0123]))
    prompts = draw(st.lists(st.integers(1, 200), min_size=count, max_size=count))
    outputs = draw(st.lists(st.integers(1, 60), min_size=count, max_size=count))
    shared = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)) if draw(st.booleans()) else None
    ids = None
    if shared is not None:
        ids = tuple(
            tuple(j if j < shared[i] else 1000 * (i + 1) + j for j in range(-(-prompts[i] // 32))) for i in range(count)
        )
    labels = tuple(draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count)))
    return Trace(
        name="drawn",
        arrival_s=np.cumsum(np.array(steps, np.float64)) * grid_s,
        prompt_tokens=np.array(prompts, np.int32),
        output_tokens=np.array(outputs, np.int32),
        prefix_ids=ids,
        prefix_block_tokens=32 if ids is not None else None,
        tenant=labels,
        slo_class=labels,
    )


@pytest.fixture(params=["dyadic", "linear", "two_regimes", "table", "roofline", "stepped"])
def latency(request: pytest.FixtureRequest, affine: Any) -> Any:
    """Linear with exact arithmetic and without, with a jump, a table with kinks, a roofline, a model without pieces."""
    if request.param == "dyadic":
        return affine(base_s=2.0**-7, per_chunk_token_s=2.0**-13, per_decode_s=2.0**-12)
    if request.param == "linear":
        return affine(0.007, 1e-4, 3e-5, 1.1e-6, 3e-8)
    if request.param == "two_regimes":
        return Linear(0.01, 1e-4, 1e-8, (DecodeFit(0.008, 2e-6, 1e-4, below=3), DecodeFit(0.011, 1e-6, 5e-5)))
    if request.param == "table":
        return Table("kinked", KINKED)
    if request.param == "stepped":
        return affine(0.007, 1e-4, 3e-5, 1.1e-6, 3e-8, pieces=False)
    return Roofline(hardware("a100-80g"), model("llama-2-7b"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_fast_paths_equal_plain_stepping(deploy: Deploy, latency: Any, data: st.DataObject) -> None:
    trace = data.draw(traces())
    period_s, delay_s = data.draw(st.sampled_from([(None, 0.0), (None, 0.03), (0.05, 0.0), (0.05, 0.02)]))
    batch = data.draw(st.sampled_from(BATCH))
    options: dict[str, Any] = {
        "batch": batch if batch != FUSSY else "prefill_first",
        "partition": data.draw(st.sampled_from(PARTITION)),
        "predictor": "oracle" if batch.startswith("sjf") else None,
        "latency": latency,
        "kv_blocks": data.draw(st.sampled_from([17, 20, 33, 400])),
        "max_sequences": data.draw(st.sampled_from([2, 256])),
        "max_batch_tokens": 512,
        "spec": {
            "report_period_s": period_s,
            "report_delay_s": delay_s,
            "partition_switch_s": data.draw(st.sampled_from([0.0, 0.1])),
        },
    }
    roles = data.draw(st.sampled_from(ROLES))
    dispatch = data.draw(st.sampled_from(DISPATCH))

    def spec() -> ClusterSpec:  # policies keep state: each run gets its own
        policy: Any = Choosy() if dispatch == "choosy" else PolicySpec.parse(dispatch, "dispatch").build(3)
        made = replace(deploy(*roles, **options), dispatch=policy)
        if batch == FUSSY:
            made = replace(made, instances=tuple(replace(i, batch=lambda seed: Fussy()) for i in made.instances))
        return made

    fast_summary, fast = run(spec(), trace, fast=True)
    plain_summary, plain = run(spec(), trace, fast=False)
    assert_same(fast, plain)
    assert fast_summary.iterations == plain_summary.iterations
    assert fast_summary.preemptions == plain_summary.preemptions
    assert fast_summary.finished + fast_summary.rejected == len(trace)


def test_requests_that_are_handed_over_crosswise_end_either_way(deploy: Deploy, latency: Any) -> None:
    """Found by the test above: of 17 blocks each needs what the other one has."""
    trace = Trace("found", np.zeros(2), np.array([72, 200], np.int32), np.array([2, 2], np.int32))
    ways = [
        run(deploy("colocated", "colocated", dispatch=DISPATCH[-1], latency=latency, kv_blocks=17), trace, fast=fast)
        for fast in (True, False)
    ]
    assert_same(ways[0][1], ways[1][1])
    assert [summary.finished for summary, _ in ways] == [2, 2]


def test_the_comparison_sees_a_shift_of_one_part_in_a_million(deploy: Deploy, affine: Any) -> None:
    trace = Trace("one", np.zeros(1), np.array([64], np.int32), np.array([20], np.int32))
    _, plain = run(deploy("colocated", latency=affine(base_s=0.01)), trace, fast=False)
    _, other = run(deploy("colocated", latency=affine(base_s=0.01 * (1 + 1e-6))), trace, fast=True)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_same(other, plain)


def test_long_decodes_are_few_rows(deploy: Deploy) -> None:
    trace = Trace("long", np.array([0.0, 0.001]), np.array([64, 64], np.int32), np.array([5000, 4000], np.int32))
    summary, _ = run(deploy("colocated"), trace, fast=True)
    assert summary.iterations > 4900
    assert summary.runs < 10
