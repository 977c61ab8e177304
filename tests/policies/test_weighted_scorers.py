"""llm-d's published scores, and how filters, weights and picker work together."""

from __future__ import annotations

from collections import Counter

import pytest

from policies.api import InstanceView
from policies.dispatch.scorers import (
    cold_scores,
    kv_scores,
    load_scores,
    prefix_scores,
    queue_scores,
    session_scores,
    token_scores,
)
from policies.dispatch.weighted_scorers import WeightedScorers
from policies.registry import PolicySpec
from policies.testing import FakeCluster, fake_instance, fake_request


def queues(*waiting: int) -> tuple[InstanceView, ...]:
    return tuple(fake_instance(i, waiting_requests=each) for i, each in enumerate(waiting))


def build(**parameters: object) -> WeightedScorers:
    policy = PolicySpec.of("dispatch", "weighted_scorers", parameters).build(0)
    assert isinstance(policy, WeightedScorers)
    return policy


def test_queue_scores_of_the_published_test() -> None:
    assert queue_scores(queues(10, 5, 0)) == [0, 0.5, 1]
    assert queue_scores(queues(5, 5)) == [1, 1]


def test_load_scores_of_the_published_test() -> None:
    assert load_scores(queues(2, 0, 15), 10) == [0.4, 0.5, 0]


def test_the_load_score_falls_from_a_half_to_zero_at_its_ceiling() -> None:
    assert load_scores(queues(0, 64, 128, 500), 128) == [0.5, 0.25, 0, 0]


def test_kv_scores_are_the_free_share() -> None:
    views = tuple(fake_instance(i, free_blocks=free) for i, free in enumerate((1000, 200, 0)))
    assert kv_scores(views) == [1, 0.2, 0]


def test_prefix_scores_are_the_share_of_the_prompt() -> None:
    assert prefix_scores([4, 1, 0], 4) == [1, 0.25, 0]


def test_token_scores_fall_to_zero_at_their_ceiling() -> None:
    views = (fake_instance(0), fake_instance(1, waiting_tokens=1 << 20, context_tokens=1 << 20), fake_instance(2))
    assert token_scores(views, 4_194_304) == [1, 0.5, 1]


def test_the_default_weights_are_2_1_1() -> None:
    policy = build()
    views = [fake_instance(0, waiting_requests=4, free_blocks=500), fake_instance(1, free_blocks=250)]
    assert policy.scores(views, {0: 3}, 4) == [2 * 0.75 + 0 + 0.5, 0 + 1 + 0.25]


@pytest.mark.parametrize(("weight", "chosen"), [(2.0, 1), (0.5, 0)])
def test_the_highest_weighted_sum_is_picked(weight: float, chosen: int) -> None:
    policy = build(prefix_weight=weight)
    policy.dispatch(fake_request(0, 64, 1, 2, 3, 4), FakeCluster((fake_instance(1),)))
    assert policy.dispatch(fake_request(1, 64, 1, 2, 3, 4), FakeCluster(queues(0, 1))).instance_id == chosen


def test_equal_scores_are_picked_by_chance() -> None:
    policy = build()
    counts = Counter(policy.dispatch(fake_request(), FakeCluster(queues(0, 0))).instance_id for _ in range(1000))
    assert abs(counts[0] - 500) < 80


def test_saturated_instances_are_left_out_while_there_are_others() -> None:
    views = (
        fake_instance(0, waiting_requests=6, observed_at_s=9.9),
        fake_instance(1, free_blocks=199, observed_at_s=9.9),
        fake_instance(2, observed_at_s=9.7),
        fake_instance(3, waiting_requests=5, free_blocks=200, observed_at_s=9.9),
    )
    policy = build(saturation=True, picker="weighted_random")
    assert {policy.dispatch(fake_request(), FakeCluster(views, 10.0)).instance_id for _ in range(50)} == {3}
    assert policy.dispatch(fake_request(), FakeCluster(views[:1], 10.0)).instance_id == 0


def test_the_affinity_filter_keeps_holders_and_sometimes_explores() -> None:
    spec = PolicySpec.parse("weighted_scorers:prefix_weight=0,affinity_threshold=0.8,explore=0.2", "dispatch")
    chosen = Counter[int]()
    for seed in range(500):
        policy = spec.build(seed)
        policy.dispatch(fake_request(0, 64, 1, 2, 3, 4), FakeCluster((fake_instance(1),)))
        chosen[policy.dispatch(fake_request(1, 80, 1, 2, 3, 4, 5), FakeCluster(queues(0, 3))).instance_id] += 1
    assert chosen[0] / 500 == pytest.approx(0.2, abs=0.06)


def test_the_random_picker_draws_in_proportion_to_the_scores() -> None:
    policy = build(picker="weighted_random", queue_weight=0)
    views = (fake_instance(0, free_blocks=750), fake_instance(1, free_blocks=250))
    counts = Counter(policy.dispatch(fake_request(), FakeCluster(views)).instance_id for _ in range(4000))
    assert counts[0] / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_hand_over_is_scored_without_the_prefix() -> None:
    policy = build()
    policy.dispatch(fake_request(0, 64, 1, 2, 3, 4), FakeCluster((fake_instance(1),)))
    decision = policy.dispatch(fake_request(0, 64, 1, 2, 3, 4), FakeCluster(queues(0, 1), phase="decode"))
    assert decision.instance_id == 0


def test_session_scores_mark_the_instance_of_the_sessions_last_request() -> None:
    assert session_scores(queues(0, 0, 0), 1) == [0, 1, 0]
    assert session_scores(queues(0, 0), None) == [0, 0]


def test_cold_scores_rank_the_never_used_before_the_longest_ago() -> None:
    assert cold_scores(queues(0, 0, 0), ()) == [1, 0.5, 0]
    assert cold_scores(queues(0, 0, 0), (2, 0)) == [0, 1, 0.5]
    assert cold_scores(queues(0), (0,)) == [1]


def test_a_session_returns_to_where_it_was() -> None:
    policy = build(session_weight=3)
    policy.dispatch(fake_request()._replace(session_id="a"), FakeCluster((fake_instance(1),)))
    again = policy.dispatch(fake_request(1)._replace(session_id="a"), FakeCluster(queues(0, 5)))
    other = policy.dispatch(fake_request(2)._replace(session_id="b"), FakeCluster(queues(0, 5)))
    assert (again.instance_id, other.instance_id) == (1, 0)


def test_cold_prompts_go_round_the_instances() -> None:
    policy = build(queue_weight=0, kv_weight=0, cold_weight=1)
    chosen = [
        policy.dispatch(fake_request(i, 32, 10 * i, 10 * i + 1), FakeCluster(queues(0, 0, 0))).instance_id
        for i in range(6)
    ]
    assert chosen == [0, 1, 2, 0, 1, 2]
