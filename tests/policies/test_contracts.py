"""Every built-in policy keeps its kind's contract, in several settings."""

from __future__ import annotations

import pytest

from policies.api import PolicyKind
from policies.registry import BUILTIN
from policies.testing import (
    BatchContract,
    DispatchContract,
    PartitionContract,
    PolicyContract,
    PredictorContract,
    ScalingContract,
)


class TestRoundRobin(DispatchContract):
    spec = "round_robin"


class TestRandom(DispatchContract):
    spec = "random"


class TestLeastLoadedByRequests(DispatchContract):
    spec = "least_loaded:metric=requests"


class TestLeastLoadedByTokens(DispatchContract):
    spec = "least_loaded:metric=tokens"


class TestLeastLoadedByKv(DispatchContract):
    spec = "least_loaded:metric=kv"


class TestPowerOfTwo(DispatchContract):
    spec = "power_of_two"


class TestPowerOfThreeByKv(DispatchContract):
    spec = "power_of_two:metric=kv,d=3"


class TestPrefixAffinity(DispatchContract):
    spec = "prefix_affinity"


class TestForgetfulPrefixAffinity(DispatchContract):
    spec = "prefix_affinity:match_threshold=0,imbalance_requests=1000,max_prefixes=50"


class TestSplitwiseMixed(DispatchContract):
    spec = "splitwise_mixed"


class TestSplitwiseMixedThatLendsEarly(DispatchContract):
    spec = "splitwise_mixed:prompt_instances=3,prompt_queue_tokens=500"


class TestSplitwiseWithoutPools(DispatchContract):
    spec = "splitwise_mixed:prompt_instances=0"


class TestCacheAware(DispatchContract):
    spec = "cache_aware"


class TestForgetfulCacheAwareWithTheRepair(DispatchContract):
    spec = "cache_aware:on_miss=least_loaded,match_threshold=0,max_prefixes=50,imbalance_requests=1000"


class TestKvCost(DispatchContract):
    spec = "kv_cost"


class TestKvCostByChance(DispatchContract):
    spec = "kv_cost:temperature=0.5,ttl_s=3,max_prefixes=50"


class TestWeightedScorers(DispatchContract):
    spec = "weighted_scorers"


class TestWeightedScorersWithAllTheirParts(DispatchContract):
    spec = (
        "weighted_scorers:load_weight=1,token_weight=1,session_weight=1,cold_weight=1,saturation=true,affinity_threshold=0.5,explore=0.3,"
        "picker=weighted_random,max_prefixes=50"
    )


class TestPrebleE2(DispatchContract):
    spec = "preble_e2"


class TestForgetfulPrebleE2(DispatchContract):
    spec = "preble_e2:window_s=5,rebalance_ratio=1,max_prefixes=50"


class TestMooncake(DispatchContract):
    spec = "mooncake"


class TestMooncakeThatRejects(DispatchContract):
    spec = "mooncake:ttft_target_s=0.3,tpot_target_s=0.02,max_prefixes=50"


class TestPdAware(DispatchContract):
    spec = "pd_aware"


class TestLocality(DispatchContract):
    spec = "locality:max_prefixes=50"


class TestDeepFlow(DispatchContract):
    spec = "deepflow"


class TestDeepFlowThatFindsLoadsUnbalanced(DispatchContract):
    spec = "deepflow:imbalance_requests=0,imbalance_ratio=1,metric=kv"


class TestWholePrompts(BatchContract):
    spec = "whole_prompts"


class TestWholePromptsThatPauseOften(BatchContract):
    spec = "whole_prompts:token_budget=64,max_pauses=1"


class TestPrefillFirst(BatchContract):
    spec = "prefill_first"


class TestPrefillFirstWithASmallBudget(BatchContract):
    spec = "prefill_first:token_budget=100,watermark=0.2"


class TestUnifiedBudget(BatchContract):
    spec = "unified_budget"


class TestUnifiedBudgetWithShortChunks(BatchContract):
    spec = "unified_budget:token_budget=90,long_prefill_token_threshold=17"


class TestChunkedPrefill(BatchContract):
    spec = "chunked_prefill"


class TestChunkedPrefillWithTinyChunks(BatchContract):
    spec = "chunked_prefill:chunk_tokens=7"


class TestDecodeFirst(BatchContract):
    spec = "decode_first"


class TestDecodeFirstWithALowWaterMark(BatchContract):
    spec = "decode_first:refill_below=4,token_budget=200"


class TestEdfSlack(BatchContract):
    spec = "edf_slack:ttft_s=0.3"


class TestEdfByDeadline(BatchContract):
    spec = "edf_slack:order=deadline,hopeless=as_due,token_budget=90"


class TestSjfPredicted(BatchContract):
    spec = "sjf_predicted:prompt_weight=1"


class TestPriority(BatchContract):
    spec = "priority:aging_s=none"


class TestMlfq(BatchContract):
    spec = "mlfq:starvation_s=1"


class TestMlfqWithFewPlaces(BatchContract):
    spec = "mlfq:batch_sequences=3,starvation_s=0.5,levels=5"


class TestVtc(BatchContract):
    spec = "vtc"


class TestNoPartition(PartitionContract):
    spec = "none"


class TestStaticShare(PartitionContract):
    spec = "static_share:prefill_pct=30,decode_pct=70"


class TestSemiPd(PartitionContract):
    spec = "semi_pd"


class TestSemiPdAsPrinted(PartitionContract):
    spec = "semi_pd:printed_variant=true,step_pct=50,max_step=100,prefill_pct=50,decode_pct=50"


class TestPdmuxTable(PartitionContract):
    spec = "pdmux_table"


class TestDuetOnDemand(PartitionContract):
    spec = "duet_on_demand"


class TestNexusGreedy(PartitionContract):
    spec = "nexus_greedy"


class TestTwitchyNexusGreedy(PartitionContract):
    spec = "nexus_greedy:hysteresis_pct=0,step_pct=7,least_pct=1,prefill_slack=10"


class TestFixed(ScalingContract):
    spec = "fixed"


class TestTargetTracking(ScalingContract):
    spec = "target_tracking"


class TestTargetTrackingOfKvUse(ScalingContract):
    spec = "target_tracking:metric=kv_use,target=0.5,stabilisation_s=0"


class TestSloFeedback(ScalingContract):
    spec = "slo_feedback:cooldown_s=20,least_requests=1"


class TestDynamoPlannerByThroughput(ScalingContract):
    spec = "dynamo_planner"


class TestDynamoPlannerByLoad(ScalingContract):
    spec = "dynamo_planner:mode=load"


class TestDynamoPlannerThatConsolidates(ScalingContract):
    spec = "dynamo_planner:mode=load,consolidate=true"


class TestNoPrediction(PredictorContract):
    spec = "none"


class TestOracle(PredictorContract):
    spec = "oracle"


class TestMean(PredictorContract):
    spec = "mean"


class TestMeanLearned(PredictorContract):
    spec = "mean_learned"


class TestMeanLearnedInOneGroup(PredictorContract):
    spec = "mean_learned:by=none,prior_requests=1,prior_tokens=1"


class TestBucketedOracle(PredictorContract):
    spec = "bucketed_oracle"


class TestBucketedOracleThatIsAlwaysWrong(PredictorContract):
    spec = "bucketed_oracle:accuracy=0,error=geometric"


SUITES = [
    suite
    for suite in globals().values()
    if isinstance(suite, type) and issubclass(suite, PolicyContract) and suite.__name__.startswith("Test")
]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in BUILTIN.items() for name in table])
def test_every_built_in_policy_has_a_contract_suite(kind: PolicyKind, name: str) -> None:
    assert any(suite.kind == kind and suite.spec.split(":")[0] == name for suite in SUITES)
