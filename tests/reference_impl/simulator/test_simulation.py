"""What the simulator does with a handful of requests, by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from policies.api import DECODE_ALL, IDLE, BatchPlan, Chunk, Dispatch, PolicyError
from reference_impl.core.spec import ClusterSpec, Link
from reference_impl.events import EventLog
from reference_impl.simulator import Simulation, Summary, simulate
from workloads.trace import Trace

Deploy = Callable[..., ClusterSpec]
Requests = Callable[..., Trace]


def rows(spec: ClusterSpec, trace: Trace, **options: Any) -> tuple[Summary, list[dict[str, Any]]]:
    log = EventLog(None)
    summary = simulate(spec, trace, log, **options)
    return summary, log.table().to_pylist()


def times(events: list[dict[str, Any]], kind: str) -> dict[int, float]:
    return {event["request"]: event["time_s"] for event in events if event["kind"] == kind}


def test_one_request_takes_its_prefill_and_one_iteration_per_further_token(deploy: Deploy, requests: Requests) -> None:
    summary, events = rows(deploy("colocated"), requests((1.0, 100, 5)))
    assert times(events, "prefilled")[0] == pytest.approx(1.0 + 0.02)
    assert times(events, "finish")[0] == pytest.approx(1.02 + 4 * 0.01)
    assert summary.finished == 1
    runs = [event for event in events if event["kind"] == "run"]
    assert [run["iterations"] for run in runs] == [1, 4]


def test_an_arrival_joins_at_the_next_iteration_boundary(deploy: Deploy, requests: Requests) -> None:
    _, events = rows(deploy("colocated"), requests((0.0, 100, 50), (0.0451, 100, 2)))
    # first prefill 0..0.02, decodes end at 0.03, 0.04, 0.05: the second prefill starts at 0.05
    assert times(events, "admit")[1] == pytest.approx(0.05)
    assert times(events, "prefilled")[1] == pytest.approx(0.07)


def test_arrivals_of_one_moment_are_planned_together(deploy: Deploy, requests: Requests) -> None:
    _, events = rows(deploy("colocated"), requests((0.5, 100, 2), (0.5, 100, 2), (0.5, 100, 2)))
    assert times(events, "prefilled") == pytest.approx(dict.fromkeys(range(3), 0.5 + 0.04))


def test_an_arrival_exactly_on_a_boundary_joins_there(deploy: Deploy, requests: Requests) -> None:
    _, events = rows(deploy("colocated"), requests((0.0, 100, 50), (0.04, 100, 2)))
    assert times(events, "admit")[1] == pytest.approx(0.04)


def test_a_request_that_can_never_fit_is_rejected_and_the_others_go_on(deploy: Deploy, requests: Requests) -> None:
    spec = deploy("colocated", kv_blocks=10)
    summary, events = rows(spec, requests((0.0, 161, 2), (0.1, 160, 1), (0.2, 20, 3)))
    assert (summary.finished, summary.rejected) == (2, 1)
    reject = next(event for event in events if event["kind"] == "reject")
    assert reject["request"] == 0
    assert "163 tokens exceed" in reject["reason"]


def test_context_limit_rejects_before_dispatch(deploy: Deploy, requests: Requests) -> None:
    summary, events = rows(deploy("colocated", max_context_tokens=50), requests((0.0, 50, 1), (0.0, 49, 1)))
    assert summary.rejected == 1
    assert list(times(events, "dispatch")) == [1]


def test_a_full_pool_preempts_the_latest_admitted_and_recomputes_it(deploy: Deploy, requests: Requests) -> None:
    spec = deploy("colocated", kv_blocks=8)
    summary, events = rows(spec, requests((0.0, 48, 40), (0.001, 48, 40)))
    preempted = [event for event in events if event["kind"] == "preempt"]
    assert preempted
    assert {event["request"] for event in preempted} == {1}
    assert summary.finished == 2
    assert summary.preemptions == len(preempted)


def test_disaggregation_waits_for_the_transfer_and_keeps_the_first_token(deploy: Deploy, requests: Requests) -> None:
    link = Link(bandwidth_bytes_per_s=1e6, latency_s=0.5)
    _, events = rows(deploy("prefill", "decode", link=link), requests((0.0, 100, 3)))
    # 100 tokens x 1000 bytes at 1 MB/s and 0.5 s latency
    transfer = next(event for event in events if event["kind"] == "transfer")
    assert (transfer["start_s"], transfer["time_s"]) == (pytest.approx(0.02), pytest.approx(0.62))
    assert times(events, "prefilled")[0] == pytest.approx(0.02)
    assert times(events, "finish")[0] == pytest.approx(0.64)


def test_transfers_of_one_sender_queue_on_its_link(deploy: Deploy, requests: Requests) -> None:
    link = Link(bandwidth_bytes_per_s=1e6)
    _, events = rows(deploy("prefill", "decode", link=link), requests((0.0, 100, 2), (0.0, 100, 2)))
    starts = sorted(event["start_s"] for event in events if event["kind"] == "transfer")
    assert starts[1] == pytest.approx(starts[0] + 0.1)


def test_full_decode_pool_backs_up_into_the_prefill_instance(deploy: Deploy, requests: Requests) -> None:
    spec = deploy("prefill", "decode", kv_blocks=10, link=Link(1e9))
    _, events = rows(spec, requests((0.0, 100, 30), (0.0, 90, 30)))
    finish = times(events, "finish")
    transfer = {event["request"]: event["start_s"] for event in events if event["kind"] == "transfer"}
    assert transfer[1] == pytest.approx(finish[0])


def test_semi_pd_lanes_run_side_by_side_at_their_shares(deploy: Deploy, requests: Requests) -> None:
    spec = deploy("semi_pd", partition="static_share:prefill_pct=50,decode_pct=50")
    _, events = rows(spec, requests((0.0, 100, 100), (0.06, 100, 2)))
    # alone at 50 %: prefill 0.04; decodes 0.02 each, so iteration 1 ends at 0.06
    assert times(events, "prefilled")[0] == pytest.approx(0.04)
    # both busy: half a device each, and 10 % contention
    assert times(events, "prefilled")[1] == pytest.approx(0.06 + 0.02 * 2 * 1.1)
    slowed = [event for event in events if event["kind"] == "run" and event["lane"] == "decode"]
    assert slowed[1]["first_end_s"] - slowed[1]["start_s"] == pytest.approx(0.022)


def test_semi_pd_hands_over_without_a_transfer(deploy: Deploy, requests: Requests) -> None:
    _, events = rows(deploy("semi_pd", partition="none"), requests((0.0, 100, 3)))
    assert not [event for event in events if event["kind"] in ("transfer", "preempt")]
    assert times(events, "finish")[0] == pytest.approx(0.04)


def test_prefix_hit_shortens_the_prefill(deploy: Deploy, requests: Requests) -> None:
    trace = requests((0.0, 64, 1), (1.0, 64, 1), ids=((1, 2), (1, 3)), block_tokens=32)
    _, events = rows(deploy("colocated"), trace)
    admits = {event["request"]: event["tokens"] for event in events if event["kind"] == "admit"}
    assert admits == {0: 0, 1: 32}
    assert times(events, "prefilled")[1] == pytest.approx(1.0 + 0.01 + 32e-4)


def test_prefix_caching_can_be_switched_off(deploy: Deploy, requests: Requests) -> None:
    trace = requests((0.0, 64, 1), (1.0, 64, 1), ids=((1, 2), (1, 3)), block_tokens=32)
    _, events = rows(deploy("colocated", prefix_caching=False), trace)
    assert [event["tokens"] for event in events if event["kind"] == "admit"] == [0, 0]


def test_block_sizes_that_do_not_divide_are_refused(deploy: Deploy, requests: Requests) -> None:
    trace = requests((0.0, 64, 1), ids=((1, 2),), block_tokens=40)
    with pytest.raises(ValueError, match="prefix blocks have 40 tokens, KV blocks 16"):
        rows(deploy("colocated"), trace)


def test_stale_reports_hide_earlier_dispatches(deploy: Deploy, requests: Requests) -> None:
    trace = requests((0.0, 100, 9), (0.001, 100, 9), (0.002, 100, 9))
    _, fresh = rows(deploy("colocated", "colocated"), trace)
    _, stale = rows(deploy("colocated", "colocated", spec={"report_delay_s": 1.0}), trace)
    assert [event["instance"] for event in fresh if event["kind"] == "dispatch"] == [0, 1, 0]
    assert [event["instance"] for event in stale if event["kind"] == "dispatch"] == [0, 0, 0]


def test_periodic_reports_show_the_state_at_the_last_tick(deploy: Deploy, requests: Requests) -> None:
    trace = requests((0.0, 100, 50), (0.001, 100, 50), (0.3, 100, 50))
    _, events = rows(deploy("colocated", "colocated", spec={"report_period_s": 0.2}), trace)
    assert [event["instance"] for event in events if event["kind"] == "dispatch"] == [0, 0, 1]


class Wrong:
    """Dispatches to an instance that does not exist."""

    kind = "dispatch"
    name = "wrong"

    def dispatch(self, request: object, cluster: object) -> object:
        return Dispatch(7)


class Never(Wrong):
    """Leaves every request queued."""

    def dispatch(self, request: object, cluster: object) -> object:
        return None


class Lazy:
    """Never plans anything."""

    kind = "batch"
    name = "lazy"
    plan_made: BatchPlan = IDLE

    def plan(self, lane: object) -> BatchPlan:
        return self.plan_made


@pytest.mark.parametrize(
    ("plan", "allowed"),
    [
        (BatchPlan((Chunk(9, 10),)), "waiting or partly prefilled requests, not of 9"),
        (BatchPlan((Chunk(0, 0),)), r"1 to 100 tokens \(int\) of request 0, not 0"),
        (BatchPlan((Chunk(0, 101),)), "1 to 100 tokens"),
        (BatchPlan((Chunk(0, 1.5),)), "1 to 100 tokens .int. of request 0, not 1.5"),  # type: ignore[arg-type]
        (BatchPlan((Chunk(0, True),)), "not True"),
        (BatchPlan((0,)), "a collection of Chunks"),  # type: ignore[arg-type]
        (BatchPlan(preempt=3), "collections of request ids"),  # type: ignore[arg-type]
        (BatchPlan(preempt=(), skip=frozenset((1,)), reason=3), "a text as reason"),  # type: ignore[arg-type]
        (BatchPlan((Chunk(0, 10), Chunk(0, 10))), "one chunk per request"),
        (BatchPlan(preempt=(0,)), "preemption of running requests"),
        (BatchPlan(skip=frozenset((0,))), "skipping of running decodes"),
        ("decode", "a BatchPlan"),
    ],
)
def test_impossible_plans_are_refused_with_what_was_allowed(
    deploy: Deploy, requests: Requests, plan: Any, allowed: str
) -> None:
    policy = Lazy()
    policy.plan_made = plan
    with pytest.raises(PolicyError, match=allowed) as error:
        rows(_with_batch(deploy, policy), requests((0.0, 100, 3)))
    assert "'lazy' on instance 0 (mixed lane)" in str(error.value)


def _with_batch(deploy: Deploy, policy: object, **fields: Any) -> ClusterSpec:
    spec = deploy("colocated", **fields)
    return replace(spec, instances=tuple(replace(i, batch=lambda seed: policy) for i in spec.instances))


def test_a_plan_beyond_the_engine_limits_is_refused(deploy: Deploy, requests: Requests) -> None:
    policy = Lazy()
    policy.plan_made = BatchPlan((Chunk(0, 60),))
    with pytest.raises(PolicyError, match="max_batch_tokens = 50"):
        rows(_with_batch(deploy, policy, max_batch_tokens=50, max_sequences=50), requests((0.0, 100, 3)))
    policy.plan_made = BatchPlan((Chunk(0, 32), Chunk(1, 32)))
    with pytest.raises(PolicyError, match=r"3 free KV blocks \(this plan takes 4\)"):
        rows(_with_batch(deploy, policy, kv_blocks=3), requests((0.0, 32, 1), (0.0, 32, 1)))


def test_dispatch_to_an_unknown_instance_is_refused(deploy: Deploy, requests: Requests) -> None:
    spec = replace(deploy("colocated"), dispatch=Wrong())  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"'wrong' decided Dispatch\(instance_id=7.*one of the instances \[0\]"):
        rows(spec, requests((0.0, 10, 2)))


def test_a_decode_instance_that_is_no_whole_number_is_refused(deploy: Deploy, requests: Requests) -> None:
    class Half(Wrong):
        """Chooses a float as decode instance."""

        def dispatch(self, request: object, cluster: object) -> object:
            return Dispatch(0, 1.0)  # type: ignore[arg-type]

    spec = replace(deploy("prefill", "decode"), dispatch=Half())  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"one of the decode and colocated instances \[1\] or none"):
        rows(spec, requests((0.0, 10, 2)))


@pytest.mark.parametrize("period_s", [None, 0.05])
def test_a_policy_that_never_serves_ends_in_an_error_not_in_a_hang(
    deploy: Deploy, requests: Requests, period_s: float | None
) -> None:
    spec = deploy("colocated", spec={"report_period_s": period_s})
    with pytest.raises(PolicyError, match="1 were never dispatched by 'wrong'"):
        rows(replace(spec, dispatch=Never()), requests((0.0, 10, 2)))  # type: ignore[arg-type]
    lazy = _with_batch(deploy, Lazy(), spec={"report_period_s": period_s})
    with pytest.raises(PolicyError, match="admitted to no iteration by batch policy lazy"):
        rows(lazy, requests((0.0, 10, 2)))


def test_skipped_decodes_pause_and_resume(deploy: Deploy, requests: Requests) -> None:
    class Alternate(Lazy):
        """Prefill, then leave request 0 out of every other iteration."""

        count = 0

        def plan(self, lane: Any) -> BatchPlan:
            if lane.waiting:
                return BatchPlan(tuple(Chunk(s.request_id, s.target_tokens) for s in lane.waiting), decode=False)
            self.count += 1
            return BatchPlan(skip=frozenset((0,))) if self.count % 2 else DECODE_ALL._replace(holds=False)

    spec = _with_batch(deploy, Alternate())
    summary, events = rows(spec, requests((0.0, 100, 5), (0.0, 100, 9)))
    assert summary.finished == 2
    kinds = [event["kind"] for event in events if event["request"] == 0]
    assert kinds.count("pause") == kinds.count("resume") == 4
    assert times(events, "finish")[0] == pytest.approx(times(events, "finish")[1])


def test_a_plan_that_only_preempts_is_followed_by_another(deploy: Deploy, requests: Requests) -> None:
    class Restart(Lazy):
        """Drop the first request once, when it has three tokens, and do nothing else in that plan."""

        done = False

        def plan(self, lane: Any) -> BatchPlan:
            running = [s for s in lane.decodes if s.generated_tokens == 3 and not self.done]
            if running:
                self.done = True
                return BatchPlan(decode=False, preempt=(running[0].request_id,), reason="restart")
            if lane.waiting:
                return BatchPlan(tuple(Chunk(s.request_id, s.target_tokens) for s in lane.waiting), decode=False)
            return BatchPlan()

    summary, events = rows(_with_batch(deploy, Restart()), requests((0.0, 100, 6)))
    assert (summary.finished, summary.preemptions) == (1, 1)
    preempt = next(event for event in events if event["kind"] == "preempt")
    assert (preempt["tokens"], preempt["reason"]) == (3, "restart")
    # 2 decodes, then 103 tokens are prefilled again and bring the fourth, then 2 decodes
    assert times(events, "finish")[0] == pytest.approx(0.02 + 0.02 + 0.01 + 103e-4 + 0.02)


def test_what_the_decode_lane_drops_wakes_an_idle_prefill_lane(deploy: Deploy, requests: Requests) -> None:
    class Impatient(Lazy):
        """On the decode lane: drop a sequence when it has one token, the first time."""

        done = False

        def plan(self, lane: Any) -> BatchPlan:
            for sequence in lane.waiting:
                return BatchPlan((Chunk(sequence.request_id, sequence.target_tokens),))
            if lane.kind == "decode" and not self.done:
                self.done = True
                return BatchPlan(decode=False, preempt=(0,))
            return BatchPlan()

    spec = deploy("semi_pd", partition="none")
    policy = Impatient()
    spec = replace(spec, instances=tuple(replace(i, batch=lambda seed: policy) for i in spec.instances))
    summary, events = rows(spec, requests((0.0, 100, 3)))
    assert (summary.finished, summary.preemptions) == (1, 1)
    assert [event["time_s"] for event in events if event["kind"] == "admit"] == pytest.approx([0.0, 0.02])


def test_decodes_that_a_plan_leaves_out_are_not_forgotten(deploy: Deploy, requests: Requests) -> None:
    class PromptsFirst(Lazy):
        """One prompt at a time; decodes only once nothing waits."""

        def plan(self, lane: Any) -> BatchPlan:
            for sequence in lane.waiting:
                return BatchPlan((Chunk(sequence.request_id, sequence.target_tokens),), decode=False)
            return DECODE_ALL

    summary, events = rows(_with_batch(deploy, PromptsFirst()), requests((0.0, 100, 4), (0.0, 100, 4)))
    assert summary.finished == 2
    assert times(events, "finish") == pytest.approx({0: 0.04 + 0.03, 1: 0.04 + 0.03})


def test_block_tables_name_every_block_once(deploy: Deploy, requests: Requests) -> None:
    class Named(Lazy):
        """Prefill first, and look at the block tables of all running sequences, as an engine does."""

        tables = 0

        def plan(self, lane: Any) -> BatchPlan:
            if lane.waiting:
                sequence = next(iter(lane.waiting))
                left = lane.uncomputed_tokens(sequence)
                if lane.blocks_needed(sequence, left) <= lane.free_blocks:
                    return BatchPlan((Chunk(sequence.request_id, left),), decode=False)
            running = [*lane.decodes, *lane.prefilling]
            private = []
            for sequence in running:
                table = lane.instance.name_blocks(sequence)
                assert len(table) == -(-sequence.context_tokens // 16)
                private += sequence.blocks
                self.tables += 1
            assert len(private) == len(set(private))
            lane.instance.check_integrity()
            return BatchPlan()

    policy = Named()
    shared = tuple((1, 2, 100 + i) for i in range(8))
    trace = requests(*[(i * 0.03, 90, 30) for i in range(8)], ids=shared, block_tokens=32)
    summary, _ = rows(_with_batch(deploy, policy, kv_blocks=24), trace)
    assert summary.finished == 8
    assert summary.preemptions > 0
    assert policy.tables > 100


@pytest.mark.parametrize("error", [RuntimeError("no idea"), SystemExit(0), AttributeError("x")])
def test_a_policy_that_raises_is_named_with_the_place_and_what_it_was_doing(
    deploy: Deploy, requests: Requests, error: BaseException
) -> None:
    class Raises(Lazy):
        """Fails at once, in whatever role."""

        def plan(self, lane: object) -> BatchPlan:
            raise error

        def dispatch(self, request: object, cluster: object) -> object:
            raise error

    kind = type(error).__name__
    with pytest.raises(
        PolicyError, match=rf"'lazy' raised {kind}.* at .*test_simulation.py:\d+ while planning the mixed"
    ):
        rows(_with_batch(deploy, Raises()), requests((0.0, 10, 2)))
    spec = replace(deploy("colocated"), dispatch=Raises())  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=rf"'lazy' raised {kind}.* while dispatching request 0 at 0.000000 s"):
        rows(spec, requests((0.0, 10, 2)))


def test_a_request_refused_at_hand_over_gives_its_room_back(deploy: Deploy, requests: Requests) -> None:
    spec = deploy("prefill", "decode", kv_blocks=10)
    small = replace(spec.instances[1], kv_blocks=4)
    spec = replace(spec, instances=(spec.instances[0], small))
    summary, events = rows(spec, requests((0.0, 100, 2), (0.0, 100, 2), (0.0, 40, 2)))
    assert (summary.finished, summary.rejected) == (1, 2)
    assert all("exceed decode instance 1" in e["reason"] for e in events if e["kind"] == "reject")


def test_what_waits_for_a_full_decode_pool_counts_as_its_load(deploy: Deploy, requests: Requests) -> None:
    spec = deploy("prefill", "decode", "decode", kv_blocks=14, max_sequences=2, link=Link(1e12))
    trace = requests(*[(0.0, 90, 20)] * 8)
    _, events = rows(
        replace(spec, instances=(replace(spec.instances[0], kv_blocks=100, max_sequences=64), *spec.instances[1:])),
        trace,
    )
    chosen = [event["instance"] for event in events if event["kind"] == "transfer"]
    assert chosen.count(1) == chosen.count(2) == 4


class Gate:
    """Leaves everything queued until ``after_s``, or while something is running."""

    kind = "dispatch"
    name = "gate"

    def __init__(self, after_s: float = 0.0) -> None:
        self.after_s = after_s
        self.asked: list[float] = []

    def dispatch(self, request: object, cluster: Any) -> object:
        self.asked.append(cluster.now_s)
        busy = any(view.running_requests + view.waiting_requests for view in cluster.instances)
        return None if busy or cluster.now_s < self.after_s else Dispatch(0)


@pytest.mark.parametrize("delay_s", [0.0, 0.5])
@pytest.mark.parametrize("fast", [True, False])
def test_queued_requests_are_offered_again_when_a_report_becomes_known(
    deploy: Deploy, requests: Requests, delay_s: float, fast: bool
) -> None:
    policy = Gate()
    spec = replace(deploy("colocated", spec={"report_delay_s": delay_s}), dispatch=policy)  # type: ignore[arg-type]
    trace = requests((0.0, 100, 3), (0.505, 100, 3), (0.506, 100, 3))
    summary, events = rows(spec, trace, fast=fast)
    assert summary.finished == 3
    assert policy.asked == sorted(policy.asked)
    dispatched, arrived = times(events, "dispatch"), times(events, "arrive")
    assert all(dispatched[i] >= arrived[i] for i in range(3))
    if delay_s:  # dispatched at 0, so it reports at 0 (busy), 0.02, 0.04 (idle): known 0.5 s later
        assert dispatched[1] == pytest.approx(0.54)


def test_a_long_queue_is_released_at_once(deploy: Deploy, requests: Requests) -> None:
    class Crowd(Gate):
        """Dispatches nothing before the thousandth question."""

        def dispatch(self, request: object, cluster: Any) -> object:
            self.asked.append(cluster.now_s)
            return Dispatch(0) if len(self.asked) > 5 else None

    spec = replace(deploy("colocated", spec={"report_period_s": 1.0}), dispatch=Crowd())  # type: ignore[arg-type]
    summary, _ = rows(spec, requests(*[(i * 1e-4, 10, 2) for i in range(2000)]))
    assert summary.finished == 2000


def test_waiting_for_a_moment_is_no_stall_where_reports_come(deploy: Deploy, requests: Requests) -> None:
    spec = replace(deploy("colocated", spec={"report_period_s": 0.01}), dispatch=Gate(30.0))  # type: ignore[arg-type]
    _, events = rows(spec, requests((0.0, 10, 2)))
    assert times(events, "dispatch")[0] == pytest.approx(30.0)


def test_a_policy_that_observes_hears_everything_in_order(deploy: Deploy, requests: Requests) -> None:
    class Listener(Gate):
        """Round robin, with ears."""

        def __init__(self) -> None:
            super().__init__()
            self.heard: list[Any] = []

        def dispatch(self, request: object, cluster: object) -> object:
            return Dispatch(0)

        def observe(self, event: Any) -> None:
            self.heard.append(event)

    policy = Listener()
    spec = replace(deploy("colocated", kv_blocks=8), dispatch=policy)  # type: ignore[arg-type]
    trace = requests((0.0, 48, 40), (0.001, 48, 40), (0.002, 500, 2), (9.0, 10, 1))
    rows(spec, trace)
    assert [event.at_s for event in policy.heard] == sorted(event.at_s for event in policy.heard)
    assert {event.kind for event in policy.heard} == {"dispatched", "first_token", "preempted", "finished", "rejected"}


def test_dropping_one_to_admit_one_is_a_legal_plan(deploy: Deploy, requests: Requests) -> None:
    class Swap(Lazy):
        """Only one sequence at a time; the second request takes the place of the first."""

        def plan(self, lane: Any) -> BatchPlan:
            if len(lane.waiting) and not lane.running_sequences:
                first = next(iter(lane.waiting))
                return BatchPlan((Chunk(first.request_id, first.target_tokens),), decode=False)
            for sequence in lane.waiting:
                if sequence.request_id == 1 and not sequence.generated_tokens:
                    running = next(iter(lane.decodes))
                    return BatchPlan((Chunk(1, sequence.target_tokens),), preempt=(running.request_id,))
            return BatchPlan()

    spec = _with_batch(deploy, Swap(), max_sequences=1)
    summary, events = rows(spec, requests((0.0, 100, 9), (0.03, 100, 3)))
    assert (summary.finished, summary.preemptions) == (2, 1)
    assert times(events, "finish")[1] < times(events, "finish")[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"report_period_s": 0.0},
        {"report_delay_s": -1.0},
        {"partition_switch_s": float("nan")},
    ],
)
def test_impossible_times_of_a_deployment_are_refused(deploy: Deploy, fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))} is .*; allowed: a finite number"):
        deploy("colocated", spec=fields)


@pytest.mark.parametrize("roles", [(), ("prefill", "prefill"), ("decode",)])
def test_a_fleet_that_cannot_serve_is_refused(deploy: Deploy, roles: Any) -> None:
    with pytest.raises(ValueError, match="at least one prefill and one decode instance"):
        deploy(*roles)


def test_what_a_policy_is_shown_cannot_be_changed(deploy: Deploy, requests: Requests) -> None:
    class Vandal(Gate):
        """Tries to reorder the host's list."""

        def dispatch(self, request: object, cluster: Any) -> object:
            cluster.instances.sort()
            return Dispatch(0)

    spec = replace(deploy("colocated"), dispatch=Vandal())  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="'gate' raised AttributeError: 'tuple' object has no attribute 'sort'"):
        rows(spec, requests((0.0, 10, 2)))


def test_the_state_is_clean_after_every_run(deploy: Deploy, requests: Requests) -> None:
    trace = requests(*[(i * 0.01, 40 + i, 20 + i % 7) for i in range(40)])
    for roles in (("colocated",), ("semi_pd",), ("prefill", "decode")):
        simulation = Simulation(deploy(*roles, kv_blocks=20), trace, EventLog(None))
        simulation.run()
        for instance in simulation.instances:
            instance.check_integrity()
            assert instance.running == instance.waiting_tokens == instance.resting_tokens == 0
            assert instance.pool.available == instance.pool.total
