"""Dynamo's documented example, and what its cost is made of."""

from __future__ import annotations

from collections import Counter
from math import exp

import pytest

from policies.api import Phase
from policies.dispatch.kv_cost import KvCost
from policies.registry import PolicySpec
from policies.testing import FakeCluster, fake_instance, fake_request

PROMPT = fake_request(9, 160, *range(10))


def build(**parameters: object) -> KvCost:
    """Instances 1, 2 and 3 were sent 2, 5 and 8 of the prompt's 10 blocks."""
    policy = PolicySpec.of("dispatch", "kv_cost", parameters).build(0)
    assert isinstance(policy, KvCost)
    for instance_id, blocks in ((1, 2), (2, 5), (3, 8)):
        policy.dispatch(fake_request(0, 16 * blocks, *range(blocks)), FakeCluster((fake_instance(instance_id),)))
    return policy


def example(now_s: float = 0.0, phase: Phase = "prefill") -> FakeCluster:
    """The documentation's workers: 10, 5 and 9 blocks in use."""
    used = ((1, 10), (2, 5), (3, 9))
    return FakeCluster(tuple(fake_instance(i, free_blocks=1000 - blocks) for i, blocks in used), now_s, phase)


def test_the_documented_example_costs_18_10_and_11() -> None:
    policy = build()
    assert policy.costs(PROMPT, example()) == [18, 10, 11]
    assert policy.dispatch(PROMPT, example()).instance_id == 2


@pytest.mark.parametrize(("weight", "costs"), [(0, [10, 5, 9]), (2, [26, 15, 13])])
def test_the_overlap_weight_multiplies_the_prefill_blocks(weight: float, costs: list[float]) -> None:
    assert build(overlap_weight=weight).costs(PROMPT, example()) == costs


def test_prompts_that_wait_are_prefill_blocks_too() -> None:
    cluster = FakeCluster((fake_instance(1, waiting_tokens=80), fake_instance(2)))
    assert build().costs(PROMPT, cluster) == [8 + 5, 5]


def test_a_hand_over_costs_the_blocks_in_use() -> None:
    assert build().costs(PROMPT, example(phase="decode")) == [10, 5, 9]


def test_prefixes_are_believed_for_their_time_to_live() -> None:
    assert build().costs(PROMPT, example(120.0)) == [18, 10, 11]
    assert build().costs(PROMPT, example(120.1)) == [20, 15, 19]


def test_equal_costs_go_to_the_smallest_tree() -> None:
    policy = build(overlap_weight=0)
    cluster = FakeCluster(tuple(fake_instance(i) for i in (1, 2, 3)))
    assert policy.dispatch(fake_request(1, 160, *range(50, 60)), cluster).instance_id == 1


def test_a_temperature_draws_by_a_softmax_over_rescaled_costs() -> None:
    policy = build(temperature=0.5)
    counts = Counter(policy.dispatch(fake_request(1, 160), example()).instance_id for _ in range(6000))
    weights = {1: exp(-2.0), 2: 1.0, 3: exp(-2.0 * 4 / 5)}  # without ids: 20, 15 and 19
    for instance_id, weight in weights.items():
        assert counts[instance_id] / 6000 == pytest.approx(weight / sum(weights.values()), abs=0.03)


def test_equal_costs_are_drawn_evenly_at_any_temperature() -> None:
    policy = build(temperature=2.0)
    cluster = FakeCluster((fake_instance(5), fake_instance(6)))
    counts = Counter(policy.dispatch(fake_request(1, 160), cluster).instance_id for _ in range(2000))
    assert abs(counts[5] - 1000) < 120
