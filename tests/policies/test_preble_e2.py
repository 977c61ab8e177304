"""When E2 exploits, explores and rebalances."""

from __future__ import annotations

import pickle

import pytest

from policies.api import PolicyEvent
from policies.dispatch.preble_e2 import PrebleE2
from policies.dispatch.windowed_work import WindowedWork
from policies.registry import PolicySpec
from policies.testing import FakeCluster, fake_instance, fake_request

IDS = tuple(range(10))


def build(**parameters: object) -> PrebleE2:
    policy = PolicySpec.of("dispatch", "preble_e2", parameters).build(0)
    assert isinstance(policy, PrebleE2)
    return policy


def pair(first: int = 0, second: int = 0, now_s: float = 0.0) -> FakeCluster:
    return FakeCluster((fake_instance(0, running_requests=first), fake_instance(1, running_requests=second)), now_s)


def only(instance_id: int, now_s: float = 0.0) -> FakeCluster:
    return FakeCluster((fake_instance(instance_id),), now_s)


@pytest.mark.parametrize(("cached", "expected"), [(6, (1, "exploit")), (5, (0, "explore"))])
def test_a_prefix_is_exploited_if_it_is_the_larger_part_of_the_prompt(cached: int, expected: tuple[int, str]) -> None:
    policy = build(rebalance_ratio=100)
    policy.dispatch(fake_request(0, 16 * cached, *IDS[:cached]), only(1))
    decision = policy.dispatch(fake_request(1, 160, *IDS), pair())
    assert (decision.instance_id, decision.reason) == expected


def test_of_several_holders_the_least_loaded_is_exploited() -> None:
    policy = build(rebalance_ratio=100)
    for instance_id in (0, 1):
        policy.dispatch(fake_request(0, 160, *IDS), only(instance_id))
    assert policy.dispatch(fake_request(1, 160, *IDS), pair(3, 2)).instance_id == 1
    assert policy.dispatch(fake_request(2, 160, *IDS), pair(2, 3)).instance_id == 0


def test_exploration_weighs_what_was_sent_within_the_window() -> None:
    policy = build(window_s=180)
    policy.dispatch(fake_request(0, 4000), only(0))  # 0.41 s of prefill
    policy.dispatch(fake_request(1, 1000), only(1))
    assert policy.dispatch(fake_request(2, 100), pair()).instance_id == 1
    policy.dispatch(fake_request(3, 2000), only(1, now_s=170.0))
    assert policy.dispatch(fake_request(4, 100), pair(now_s=179.0)).instance_id == 1
    assert policy.dispatch(fake_request(5, 100), pair(now_s=190.0)).instance_id == 0, "only the late one counts still"


def test_exploration_weighs_unfinished_requests_by_their_expected_output() -> None:
    policy = build(output_tokens=45)
    policy.dispatch(fake_request(0, 4000), only(0))  # 0.41 s; a decode token takes 10.1 ms, so 45 of them 0.45 s
    assert policy.dispatch(fake_request(1, 100), pair(0, 1)).instance_id == 0
    short = build(output_tokens=20)
    short.dispatch(fake_request(0, 4000), only(0))
    assert short.dispatch(fake_request(1, 100), pair(0, 1)).instance_id == 1


def test_the_expected_output_follows_what_finishes() -> None:
    policy = build(output_tokens=45)
    for request_id in range(2000):
        policy.observe(PolicyEvent("finished", 0.0, request_id, 0, 100))
        policy.observe(PolicyEvent("first_token", 0.0, request_id, 0, 1))
    assert policy._mean_output == pytest.approx(100, rel=0.01)


def test_eviction_makes_an_instance_of_many_hits_dearer() -> None:
    policy = build(window_s=10)
    for _ in range(2):
        policy.dispatch(fake_request(0, 160, *IDS), only(0))
    policy.dispatch(fake_request(0, 210, *range(100, 113)), only(1))  # as much prefill, without hits
    sent = policy._work.totals(0.0)
    assert sent[0].prefill_s < sent[1].prefill_s + 0.01
    assert policy.dispatch(fake_request(1, 2000, *range(1000, 1125)), pair()).instance_id == 1


def test_a_hot_prefix_is_copied_to_the_lightest_instance_when_the_loads_differ_too_much() -> None:
    policy = build(rebalance_ratio=1.5)
    policy.dispatch(fake_request(0, 160, *IDS), only(0))
    decision = policy.dispatch(fake_request(1, 160, *IDS), pair(9, 0))
    assert (decision.instance_id, decision.reason) == (1, "rebalance")
    again = policy.dispatch(fake_request(2, 160, *IDS), pair(9, 2))
    assert (again.instance_id, again.reason) == (1, "exploit"), "it holds the prefix now"


def test_windowed_work_adds_up_the_window_and_no_more() -> None:
    work = WindowedWork(36.0)
    for second in range(1000):
        work.add(second % 3, float(second), 1.0, 10, 5)
    totals = work.totals(999.0)
    assert sum(each.prefill_s for each in totals.values()) == 36
    assert sum(each.hit_tokens for each in totals.values()) == 180
    assert len(pickle.dumps(work)) < 20_000
    assert work.totals(5000.0) == {}
