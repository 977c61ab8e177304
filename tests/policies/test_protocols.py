"""Built-in policies and fake views satisfy the protocols: mypy checks the types, the tests the run-time side."""

from __future__ import annotations

from policies.api import (
    BatchPolicy,
    ClusterView,
    DispatchPolicy,
    LaneView,
    LengthPredictor,
    PartitionPolicy,
    Policy,
    ScalingPolicy,
    SequenceView,
)
from policies.batch.chunked_prefill import ChunkedPrefill
from policies.batch.decode_first import DecodeFirst
from policies.batch.edf_slack import EdfSlack
from policies.batch.mlfq import Mlfq
from policies.batch.prefill_first import PrefillFirst
from policies.batch.priority import Priority
from policies.batch.sjf_predicted import SjfPredicted
from policies.batch.unified_budget import UnifiedBudget
from policies.batch.vtc import Vtc
from policies.batch.whole_prompts import WholePrompts
from policies.dispatch.cache_aware import CacheAware
from policies.dispatch.deepflow import DeepFlow
from policies.dispatch.kv_cost import KvCost
from policies.dispatch.least_loaded import LeastLoaded
from policies.dispatch.locality import Locality
from policies.dispatch.mooncake import Mooncake
from policies.dispatch.pd_aware import PdAware
from policies.dispatch.power_of_two import PowerOfTwo
from policies.dispatch.preble_e2 import PrebleE2
from policies.dispatch.prefix_affinity import PrefixAffinity
from policies.dispatch.random_choice import RandomChoice
from policies.dispatch.round_robin import RoundRobin
from policies.dispatch.splitwise_mixed import SplitwiseMixed
from policies.dispatch.weighted_scorers import WeightedScorers
from policies.partition.duet_on_demand import DuetOnDemand
from policies.partition.nexus_greedy import NexusGreedy
from policies.partition.none import NoPartition
from policies.partition.pdmux_table import PdmuxTable
from policies.partition.semi_pd import SemiPd
from policies.partition.static_share import StaticShare
from policies.prediction.bucketed_oracle import BucketedOracle
from policies.prediction.mean import Mean
from policies.prediction.mean_learned import MeanLearned
from policies.prediction.none import NoPrediction
from policies.prediction.oracle import Oracle
from policies.registry import BUILTIN
from policies.scaling.dynamo_planner import DynamoPlanner
from policies.scaling.fixed import Fixed
from policies.scaling.slo_feedback import SloFeedback
from policies.scaling.target_tracking import TargetTracking
from policies.testing import FakeCluster, FakeLane, fake_instance, fake_sequence

DISPATCH: list[DispatchPolicy] = [
    *(RoundRobin(), RandomChoice(), LeastLoaded(), PowerOfTwo(), PrefixAffinity()),
    *(CacheAware(), KvCost(), WeightedScorers(), PrebleE2(), Mooncake(), PdAware(), Locality(), DeepFlow()),
    SplitwiseMixed(),
]
BATCH: list[BatchPolicy] = [
    PrefillFirst(),
    UnifiedBudget(),
    ChunkedPrefill(),
    DecodeFirst(),
    EdfSlack(),
    SjfPredicted(),
    Priority(),
    Mlfq(),
    Vtc(),
    WholePrompts(),
]
PARTITION: list[PartitionPolicy] = [NoPartition(), StaticShare(), SemiPd(), PdmuxTable(), DuetOnDemand(), NexusGreedy()]
SCALING: list[ScalingPolicy] = [Fixed(), TargetTracking(), SloFeedback(), DynamoPlanner()]
PREDICTION: list[LengthPredictor] = [NoPrediction(), Oracle(), Mean(), MeanLearned(), BucketedOracle()]
LANE: LaneView = FakeLane()
SEQUENCE: SequenceView = fake_sequence(0, 1)
CLUSTER: ClusterView = FakeCluster((fake_instance(0),))


def test_every_built_in_policy_is_checked_against_its_protocol() -> None:
    every: list[Policy] = [*DISPATCH, *BATCH, *PARTITION, *SCALING, *PREDICTION]
    checked = {(policy.kind, policy.name) for policy in every}
    assert checked == {(kind, name) for kind, table in BUILTIN.items() for name in table}
