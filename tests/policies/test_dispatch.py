"""Exact decisions of the dispatch policies."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest

from policies.api import InstanceView
from policies.dispatch.prefix_affinity import PrefixAffinity
from policies.registry import PolicySpec
from policies.testing import FakeCluster, fake_instance, fake_request


def chosen(spec: str, *instances: InstanceView) -> int:
    policy = PolicySpec.parse(spec, "dispatch").build(0)
    decision = policy.dispatch(fake_request(), FakeCluster(instances))
    return int(decision.instance_id)


def idle(count: int) -> FakeCluster:
    return FakeCluster(tuple(fake_instance(i) for i in range(count)))


def affinity(**parameters: object) -> PrefixAffinity:
    policy = PolicySpec.of("dispatch", "prefix_affinity", parameters).build(0)
    assert isinstance(policy, PrefixAffinity)
    return policy


def test_round_robin_takes_instances_in_turn() -> None:
    policy = PolicySpec.parse("round_robin", "dispatch").build(0)
    assert [policy.dispatch(fake_request(), idle(3)).instance_id for _ in range(5)] == [0, 1, 2, 0, 1]


def test_round_robin_has_one_turn_per_phase() -> None:
    policy = PolicySpec.parse("round_robin", "dispatch").build(0)
    prefill = FakeCluster((fake_instance(0), fake_instance(1)), phase="prefill")
    decode = FakeCluster((fake_instance(2), fake_instance(3)), phase="decode")
    made = [policy.dispatch(fake_request(), cluster).instance_id for _ in range(2) for cluster in (prefill, decode)]
    assert made == [0, 2, 1, 3]


def test_random_uses_every_instance_about_equally() -> None:
    policy = PolicySpec.parse("random", "dispatch").build(1)
    counts = Counter(policy.dispatch(fake_request(), idle(4)).instance_id for _ in range(4000))
    assert set(counts) == {0, 1, 2, 3}
    assert max(abs(count - 1000) for count in counts.values()) < 5 * (4000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize(("metric", "best"), [("requests", 1), ("tokens", 2), ("kv", 3)])
def test_least_loaded_follows_its_metric(metric: str, best: int) -> None:
    instances = (
        fake_instance(0, waiting_requests=9, running_requests=9, waiting_tokens=900, context_tokens=900),
        fake_instance(1, running_requests=1, waiting_tokens=500, context_tokens=500, free_blocks=900),
        fake_instance(2, waiting_requests=1, running_requests=1, waiting_tokens=300, free_blocks=100),
        fake_instance(3, waiting_requests=2, running_requests=2, context_tokens=400, free_blocks=990),
    )
    assert chosen(f"least_loaded:metric={metric}", *instances) == best


@pytest.mark.parametrize("metric", ["requests", "tokens"])
def test_least_loaded_counts_what_waits_and_what_runs(metric: str) -> None:
    waiting = fake_instance(0, waiting_requests=3, waiting_tokens=300)
    running = fake_instance(1, running_requests=2, context_tokens=200)
    assert chosen(f"least_loaded:metric={metric}", waiting, running) == 1
    assert chosen(f"least_loaded:metric={metric}", running, waiting) == 1


@pytest.mark.parametrize("metric", ["requests", "tokens", "kv"])
def test_least_loaded_breaks_ties_by_the_lowest_id(metric: str) -> None:
    assert chosen(f"least_loaded:metric={metric}", fake_instance(4), fake_instance(5)) == 4


def test_least_loaded_by_kv_orders_instances_as_the_view_does() -> None:
    large = fake_instance(0, total_blocks=1000, free_blocks=600, waiting_tokens=320)
    small = fake_instance(1, total_blocks=100, free_blocks=60, waiting_tokens=16)
    assert small.kv_use < large.kv_use
    assert chosen("least_loaded:metric=kv", large, small) == 1


def test_power_of_two_never_takes_the_most_loaded_of_all() -> None:
    policy = PolicySpec.parse("power_of_two", "dispatch").build(0)
    cluster = FakeCluster(tuple(fake_instance(i, running_requests=i) for i in range(4)))
    counts = Counter(policy.dispatch(fake_request(), cluster).instance_id for _ in range(3000))
    assert counts[3] == 0
    for instance_id, share in {0: 1 / 2, 1: 1 / 3, 2: 1 / 6}.items():  # P(it is the lowest id of a pair)
        assert counts[instance_id] / 3000 == pytest.approx(share, abs=0.05)


def test_power_of_two_takes_the_least_loaded_where_there_are_no_more_than_d() -> None:
    instances = (fake_instance(0, running_requests=1), fake_instance(1), fake_instance(2, running_requests=2))
    assert chosen("power_of_two:d=3", *instances) == 1


def test_prefix_affinity_returns_to_the_instance_that_was_sent_the_prefix() -> None:
    policy = affinity()
    busier = FakeCluster((fake_instance(0, running_requests=5), fake_instance(1, running_requests=4)))
    assert policy.dispatch(fake_request(0, 64, 1, 2, 3, 4), busier).instance_id == 1
    turned = FakeCluster((fake_instance(0), fake_instance(1, running_requests=9)))
    decision = policy.dispatch(fake_request(1, 96, 1, 2, 3, 4, 5, 6), turned)
    assert (decision.instance_id, decision.reason) == (1, "prefix")


def test_prefix_affinity_prefers_the_longer_match() -> None:
    policy = affinity(match_threshold=0.1)
    policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster((fake_instance(0), fake_instance(1, running_requests=1))))
    only_one = FakeCluster((fake_instance(1),))
    policy.dispatch(fake_request(1, 64, 1, 2, 3, 4), only_one)
    both = FakeCluster((fake_instance(0), fake_instance(1, running_requests=9)))
    assert policy.dispatch(fake_request(2, 80, 1, 2, 3, 4, 5), both).instance_id == 1
    assert policy.dispatch(fake_request(3, 48, 1, 2, 7), both).instance_id == 0, "several hold it: the least loaded"


def test_prefix_affinity_ignores_a_match_below_the_threshold() -> None:
    policy = affinity(match_threshold=0.5)
    policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster((fake_instance(1),)))
    cluster = FakeCluster((fake_instance(0), fake_instance(1, running_requests=1)))
    assert policy.dispatch(fake_request(1, 80, 1, 2, 3, 4, 5), cluster).instance_id == 0
    policy = affinity(match_threshold=0.4)
    policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster((fake_instance(1),)))
    assert policy.dispatch(fake_request(1, 80, 1, 2, 3, 4, 5), cluster).instance_id == 1


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [(0, 10, "prefix"), (0, 11, "unbalanced"), (100, 150, "prefix"), (100, 151, "unbalanced")],
)
def test_prefix_affinity_balances_when_both_thresholds_are_passed(low: int, high: int, reason: str) -> None:
    policy = affinity(imbalance_requests=10, imbalance_ratio=1.5)
    policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster((fake_instance(1),)))
    cluster = FakeCluster((fake_instance(0, running_requests=low), fake_instance(1, waiting_requests=high)))
    decision = policy.dispatch(fake_request(1, 32, 1, 2), cluster)
    assert (decision.instance_id, decision.reason) == (int(reason == "prefix"), reason)


def test_prefix_affinity_passes_over_holders_that_are_not_ready() -> None:
    policy = affinity(match_threshold=0.1)
    policy.dispatch(fake_request(0, 48, 1, 2, 3), FakeCluster((fake_instance(5),)))
    policy.dispatch(fake_request(1, 80, 1, 2, 3, 4, 5), FakeCluster((fake_instance(9),)))
    cluster = FakeCluster((fake_instance(0), fake_instance(5, running_requests=3)))
    assert policy.dispatch(fake_request(2, 80, 1, 2, 3, 4, 5), cluster).instance_id == 5
    cluster = FakeCluster((fake_instance(0), fake_instance(7, running_requests=3)))
    assert policy.dispatch(fake_request(3, 48, 1, 2, 3), cluster).instance_id == 0


def test_prefix_affinity_goes_by_load_without_prefixes_and_at_hand_over() -> None:
    policy = affinity()
    policy.dispatch(fake_request(0, 32, 1, 2), FakeCluster((fake_instance(1),)))
    views = (fake_instance(0), fake_instance(1, running_requests=1))
    assert policy.dispatch(fake_request(1, 32), FakeCluster(views)).instance_id == 0
    assert policy.dispatch(fake_request(2, 32, 1, 2), FakeCluster(views, phase="decode")).instance_id == 0
    assert policy.dispatch(fake_request(3, 32, 1, 2), FakeCluster(views)).instance_id == 1


def test_prefix_affinity_forgets_the_least_recently_used_ends_first() -> None:
    policy = affinity(max_prefixes=4, match_threshold=0.3)
    one, zero = FakeCluster((fake_instance(1),)), FakeCluster((fake_instance(0),))
    policy.dispatch(fake_request(0, 48, 1, 2, 3), one)
    policy.dispatch(fake_request(1, 32, 8, 9), zero)  # forgets 3, keeps 1 and 2
    both = FakeCluster((fake_instance(0), fake_instance(1, running_requests=1)))
    assert policy.dispatch(fake_request(2, 32, 1, 77), both).instance_id == 1
    policy.dispatch(fake_request(3, 64, 20, 21, 22, 23), zero)
    assert policy.dispatch(fake_request(4, 48, 1, 2, 3), both).instance_id == 0


def test_prefix_affinity_keeps_what_is_used_again() -> None:
    policy = affinity(max_prefixes=4)
    one = FakeCluster((fake_instance(1),))
    for ids in ((1, 2), (3, 4), (1, 2), (5, 6)):
        policy.dispatch(fake_request(0, 32, *ids), one)
    both = FakeCluster((fake_instance(0), fake_instance(1, running_requests=1)))
    assert policy.dispatch(fake_request(1, 32, 1, 2), both).instance_id == 1
    assert policy.dispatch(fake_request(2, 32, 3, 4), both).instance_id == 0


def test_prefix_affinity_stays_within_its_bound_and_remembers_after_pickle() -> None:
    policy = affinity(max_prefixes=100)
    for request_id in range(50):
        policy.dispatch(fake_request(request_id, 160, *range(10 * request_id, 10 * request_id + 10)), idle(2))
    assert len(pickle.dumps(policy)) < 5_000
    views = FakeCluster((fake_instance(0, running_requests=1), fake_instance(1)))
    policy.dispatch(fake_request(50, 32, 7000, 7001), views)
    moved = pickle.loads(pickle.dumps(policy))
    turned = FakeCluster((fake_instance(0), fake_instance(1, running_requests=1)))
    assert moved.dispatch(fake_request(51, 32, 7000, 7001), turned).instance_id == 1
