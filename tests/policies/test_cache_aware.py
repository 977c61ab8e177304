"""SGLang's published thresholds and its rule for misses."""

from __future__ import annotations

from collections import Counter

import pytest

from policies.api import InstanceView
from policies.dispatch.cache_aware import CacheAware
from policies.registry import PolicySpec
from policies.testing import FakeCluster, fake_instance, fake_request


def build(**parameters: object) -> CacheAware:
    policy = PolicySpec.of("dispatch", "cache_aware", parameters).build(0)
    assert isinstance(policy, CacheAware)
    return policy


def loads(*requests: int) -> tuple[InstanceView, ...]:
    return tuple(fake_instance(i, running_requests=each) for i, each in enumerate(requests))


def test_the_published_defaults() -> None:
    policy = build()
    assert (policy.match_threshold, policy.imbalance_requests, policy.imbalance_ratio) == (0.5, 32, 1.1)


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [(0, 32, "prefix"), (0, 33, "unbalanced"), (400, 440, "prefix"), (400, 441, "unbalanced")],
)
def test_the_shortest_queue_only_beyond_both_load_thresholds(low: int, high: int, reason: str) -> None:
    policy = build()
    policy.dispatch(fake_request(0, 64, 1, 2, 3, 4), FakeCluster((fake_instance(1),)))
    decision = policy.dispatch(fake_request(1, 64, 1, 2, 3, 4), FakeCluster(loads(low, high)))
    assert (decision.instance_id, decision.reason) == (int(reason == "prefix"), reason)


def test_a_match_counts_only_above_the_threshold() -> None:
    policy = build(on_miss="least_loaded")
    policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster((fake_instance(1),)))
    half = policy.dispatch(fake_request(1, 64, 1, 2, 30, 40), FakeCluster(loads(0, 9)))
    assert (half.instance_id, half.reason) == (0, "least loaded"), "2 of 4 ids are not more than a half"
    more = policy.dispatch(fake_request(2, 48, 1, 2, 50), FakeCluster((fake_instance(1, running_requests=9),)))
    assert more.reason == "prefix", "2 of 3 ids are"


def test_a_miss_goes_to_the_smallest_tree_however_loaded() -> None:
    policy = build()
    policy.dispatch(fake_request(0, 640, *range(40)), FakeCluster((fake_instance(0),)))
    policy.dispatch(fake_request(1, 160, *range(100, 110)), FakeCluster((fake_instance(1),)))
    for request_id in range(3):  # 10 + 3 * 10 ids are still no more than 40
        decision = policy.dispatch(
            fake_request(request_id, 160, *range(1000 * request_id + 1000, 1000 * request_id + 1010)),
            FakeCluster(loads(0, 30)),
        )
        assert (decision.instance_id, decision.reason) == (1, "smallest tree")


def test_the_later_repair_sends_a_miss_to_the_least_loaded() -> None:
    policy = build(on_miss="least_loaded")
    policy.dispatch(fake_request(0, 640, *range(40)), FakeCluster((fake_instance(0),)))
    decision = policy.dispatch(fake_request(1, 160, *range(100, 110)), FakeCluster(loads(0, 30)))
    assert (decision.instance_id, decision.reason) == (0, "least loaded")


def test_one_of_several_holders_is_drawn() -> None:
    policy = build()
    for instance_id in (0, 1):
        policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster((fake_instance(instance_id),)))
    chosen = Counter(
        policy.dispatch(fake_request(1, 32, 1, 2), FakeCluster(loads(9, 0, 0))).instance_id for _ in range(200)
    )
    assert set(chosen) == {0, 1}
    assert min(chosen.values()) > 60


def test_prompts_sent_for_balance_are_remembered_too() -> None:
    policy = build()
    policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster(loads(0, 90)))
    assert policy.dispatch(fake_request(1, 32, 1, 2), FakeCluster(loads(9, 0))).instance_id == 0


def test_hand_overs_and_prompts_without_ids_go_to_the_shortest_queue() -> None:
    policy = build()
    policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster((fake_instance(1),)))
    assert policy.dispatch(fake_request(1, 32), FakeCluster(loads(3, 4))).instance_id == 0
    assert policy.dispatch(fake_request(2, 32, 1, 2), FakeCluster(loads(3, 4), phase="decode")).instance_id == 0
