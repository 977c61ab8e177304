"""The contract suites refuse policies that break the contract: each way to break it, and the message."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from policies.api import DECODE_ALL, BatchPlan, Chunk, ClusterView, Dispatch, LaneView, Partition, RequestView
from policies.batch.chunked_prefill import ChunkedPrefill
from policies.contracts.base import PolicyContract
from policies.dispatch.least_loaded import LeastLoaded
from policies.testing import (
    BatchContract,
    DispatchContract,
    FakeLane,
    PartitionContract,
    PredictorContract,
    fake_sequence,
)


def fails(suite: type[PolicyContract], policy: type, test: str, message: str) -> None:
    """The suite's test fails on this policy class with this message."""

    class Suite(suite):  # type: ignore[misc, valid-type]
        def make(self, seed: int) -> Any:
            made = policy()
            made.rng = random.Random(seed)
            return made

    with pytest.raises(AssertionError, match=message):
        getattr(Suite(), test)()


@dataclass
class Stranger(LeastLoaded):
    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        return Dispatch(1000)


@dataclass
class Meddler(LeastLoaded):
    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        decision = super().dispatch(request, cluster)
        cluster.instances = cluster.instances[1:]  # type: ignore[misc]
        return decision


@dataclass
class Gambler(LeastLoaded):
    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        return Dispatch(random.choice(cluster.instances).instance_id)


@dataclass
class Watcher(LeastLoaded):
    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        return Dispatch(cluster.instances[int(time.monotonic()) % len(cluster.instances)].instance_id)


@dataclass
class Forgetful(LeastLoaded):
    turn: int = field(init=False, default=0)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Forgetful, ()

    def dispatch(self, request: RequestView, cluster: ClusterView) -> Dispatch:
        self.turn += 1
        return Dispatch(cluster.instances[self.turn % len(cluster.instances)].instance_id)


@pytest.mark.parametrize(
    ("policy", "test", "message"),
    [
        (Stranger, "test_decisions_are_valid", "the instances are"),
        (Meddler, "test_decisions_are_valid", "changed the cluster view"),
        (Gambler, "test_same_seed_and_views_give_the_same_decisions", "decides otherwise"),
        (Gambler, "test_reads_no_clock_and_no_global_randomness", "global random module"),
        (Watcher, "test_reads_no_clock_and_no_global_randomness", r"time\.monotonic"),
        (Forgetful, "test_survives_pickle_in_mid_run", "a pickled policy decides otherwise"),
    ],
)
def test_dispatch_contract_refuses(policy: type, test: str, message: str) -> None:
    fails(DispatchContract, policy, test, message)


def test_clocks_and_luck_work_again_afterwards() -> None:
    class Suite(DispatchContract):
        spec = "least_loaded"

    before = time.monotonic
    Suite().test_reads_no_clock_and_no_global_randomness()
    assert time.monotonic is before


@dataclass
class Idler(ChunkedPrefill):
    def plan(self, lane: LaneView) -> BatchPlan:
        return DECODE_ALL


@dataclass
class Alternator(ChunkedPrefill):
    turn: bool = field(init=False, default=False)

    def plan(self, lane: LaneView) -> BatchPlan:
        self.turn = not self.turn
        made = super().plan(lane)
        return made._replace(decode=self.turn) if made.prefills else made


@dataclass
class Glutton(ChunkedPrefill):
    def plan(self, lane: LaneView) -> BatchPlan:
        return BatchPlan(
            tuple(Chunk(s.request_id, lane.uncomputed_tokens(s)) for s in (*lane.prefilling, *lane.waiting))
        )


@dataclass
class Thief(ChunkedPrefill):
    def plan(self, lane: LaneView) -> BatchPlan:
        made = super().plan(lane)
        lane.waiting.clear()  # type: ignore[attr-defined]
        return made


@pytest.mark.parametrize(
    ("policy", "test", "message"),
    [
        (Idler, "test_decisions_are_valid", "nothing runs although work waits"),
        (Idler, "test_a_prompt_that_needs_the_whole_pool_is_admitted_when_nothing_else_runs", "waits for ever"),
        (Alternator, "test_a_plan_that_holds_is_returned_again", "promised to return"),
        (Glutton, "test_decisions_are_valid", "max_batch_tokens|KV blocks|places are free"),
        (Thief, "test_decisions_are_valid", "changed the lane view"),
    ],
)
def test_batch_contract_refuses(policy: type, test: str, message: str) -> None:
    fails(BatchContract, policy, test, message)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (BatchPlan((Chunk(9, 1),)), "waiting or partly prefilled requests only"),
        (BatchPlan((Chunk(1, 4), Chunk(1, 4))), "one chunk per request"),
        (BatchPlan((Chunk(1, 0),)), "1 to 100 tokens"),
        (BatchPlan((Chunk(1, 101),)), "1 to 100 tokens"),
        (BatchPlan((Chunk(1, 100),)), "max_batch_tokens=50"),
        (BatchPlan((Chunk(1, 33), Chunk(2, 10))), "takes 5 KV blocks, 4 are free"),
        (BatchPlan((Chunk(1, 5), Chunk(2, 5), Chunk(3, 5))), "admits 3 requests, 2 places are free"),
        (BatchPlan(preempt=(1,)), "may preempt"),
        (BatchPlan(skip=frozenset((1,))), "may skip running decodes only"),
    ],
)
def test_a_fake_lane_says_why_a_plan_cannot_be_carried_out(plan: BatchPlan, message: str) -> None:
    lane = FakeLane(
        total_blocks=6,
        max_sequences=3,
        max_batch_tokens=50,
        waiting=[fake_sequence(i, 100) for i in (1, 2, 3)],
        decodes=[fake_sequence(8, 32, computed=32)],
    )
    with pytest.raises(AssertionError, match=message):
        lane.check(plan)


class Overspender:
    window_s = None

    def initial(self) -> Partition:
        return Partition(0, 100)


class Clairvoyant:
    oracle = False
    name = "guess"

    def predict(self, request: RequestView) -> int | None:
        return request.oracle_output_tokens


def test_partition_and_predictor_contracts_refuse() -> None:
    fails(PartitionContract, Overspender, "test_decisions_are_valid", "each share is 1 to 100")
    fails(PredictorContract, Clairvoyant, "test_only_an_oracle_depends_on_the_true_length", "leaks the true output")


def test_a_suite_without_a_policy_says_what_to_set() -> None:
    class Suite(DispatchContract):
        pass

    with pytest.raises(TypeError, match="set spec = 'module:Class'"):
        Suite().test_decisions_are_valid()
