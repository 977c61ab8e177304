"""Splitwise's pools: who prefills, who decodes, who is lent, and when a lent machine is back."""

from __future__ import annotations

from typing import Literal

import pytest

from policies.api import Dispatch, InstanceView, PolicyEvent
from policies.dispatch.splitwise_mixed import SplitwiseMixed
from policies.registry import PolicySpec
from policies.testing import FakeCluster, fake_instance, fake_request


def build(**parameters: object) -> SplitwiseMixed:
    policy = PolicySpec.of("dispatch", "splitwise_mixed", parameters).build(0)
    assert isinstance(policy, SplitwiseMixed)
    return policy


def fleet(*waiting: int, blocks: int = 1000) -> FakeCluster:
    """Colocated instances 0, 1, ... with so many waiting requests each."""
    views = (fake_instance(i, waiting_requests=each, total_blocks=blocks) for i, each in enumerate(waiting))
    return FakeCluster(tuple(views))


def ask(policy: SplitwiseMixed, cluster: FakeCluster, request_id: int, tokens: int) -> tuple[int, int | None]:
    """Prompt machine and token machine (None: the same) of one more request."""
    decision = policy.dispatch(fake_request(request_id, tokens), cluster)
    assert isinstance(decision, Dispatch)
    return decision.instance_id, decision.decode_instance_id


def happens(policy: SplitwiseMixed, kind: Literal["first_token", "finished", "rejected"], *requests: int) -> None:
    for request_id in requests:
        policy.observe(PolicyEvent(kind, 0.0, request_id, None, 1))


def test_prompt_and_token_machine_are_the_least_loaded_of_their_pools() -> None:
    policy, cluster = build(prompt_instances=2), fleet(0, 0, 0, 0)
    assert ask(policy, cluster, 0, 300) == (0, 2)
    assert ask(policy, cluster, 1, 100) == (1, 3)
    assert ask(policy, cluster, 2, 100) == (1, 3)
    assert ask(policy, cluster, 3, 10) == (1, 3), "200 pending tokens are fewer than 300, 200 promised fewer than 300"
    happens(policy, "first_token", 0)
    assert ask(policy, cluster, 4, 10) == (0, 3), "the prompt is computed; its KV is still promised to machine 2"
    happens(policy, "finished", 0)
    assert ask(policy, cluster, 5, 10) == (0, 2)


def test_half_of_the_instances_are_prompt_machines_unless_told_otherwise() -> None:
    assert ask(build(), fleet(0, 0, 0), 0, 10) == (0, 2)
    assert ask(build(prompt_instances=9), fleet(0, 0, 0), 0, 10) == (0, 2), "one token machine is always left"


def test_a_long_queue_has_a_token_machine_lent_for_prompts_until_it_idles() -> None:
    policy, cluster = build(prompt_instances=1, prompt_queue_tokens=1000), fleet(1, 0, 0)
    assert ask(policy, cluster, 0, 900) == (0, 1)
    assert ask(policy, cluster, 1, 100) == (0, 2), "1000 pending tokens are no long queue"
    decision = policy.dispatch(fake_request(2, 1), cluster)
    assert decision == Dispatch(1, 2, "token machine 1 lent for prompts"), "1001 are, and 1 has as few pending as 2"
    assert ask(policy, cluster, 3, 10) == (1, 2), "the mixed pool comes before another loan"
    happens(policy, "first_token", 0, 1, 2, 3)
    assert ask(policy, fleet(0, 0, 0), 4, 10) == (0, 2), "machine 1 still decodes request 0: it stays in the mixed pool"
    happens(policy, "finished", 0)
    assert ask(policy, fleet(0, 0, 0), 5, 10) == (0, 1), "it had nothing left, and is a token machine again"


def test_nobody_waiting_means_that_no_queue_is_long() -> None:
    policy = build(prompt_instances=1, prompt_queue_tokens=1000)
    assert ask(policy, fleet(0, 0), 0, 5000) == (0, 1)
    assert ask(policy, fleet(0, 0), 1, 5000) == (0, 1)


def test_a_full_token_pool_has_a_prompt_machine_lent_for_tokens() -> None:
    policy, cluster = build(prompt_instances=2), fleet(0, 0, 0, blocks=10)
    assert ask(policy, cluster, 0, 100) == (0, 2)
    decision = policy.dispatch(fake_request(1, 60), cluster)
    assert decision == Dispatch(1, None, "prompt machine 1 lent for tokens"), "100 + 60 tokens fill 10 blocks of 16"
    assert ask(policy, cluster, 2, 50) == (0, 2), "the smaller one still fits the token pool"


def test_predicted_outputs_count_as_promised_memory() -> None:
    policy, cluster = build(prompt_instances=2), fleet(0, 0, 0, blocks=10)
    long = fake_request(0, 100)._replace(predicted_output_tokens=60)
    assert policy.dispatch(long, cluster).decode_instance_id is None


def test_where_nobody_is_left_to_lend_a_request_stays_where_the_fewest_tokens_are_pending() -> None:
    policy, cluster = build(prompt_instances=1, prompt_queue_tokens=10), fleet(1, 1)
    assert ask(policy, cluster, 0, 20) == (1, None), "token machine 1 is lent, and takes both"
    decision = policy.dispatch(fake_request(1, 30), cluster)
    assert decision == Dispatch(0, None, "nobody left to lend")


def test_without_pools_the_fewest_pending_tokens_of_all_count() -> None:
    policy, cluster = build(prompt_instances=0), fleet(0, 0)
    assert [ask(policy, cluster, i, tokens) for i, tokens in enumerate((50, 20, 10, 30))] == [
        *[(0, None), (1, None), (1, None), (1, None)]
    ]
    happens(policy, "rejected", 3)
    happens(policy, "first_token", 0)
    assert ask(policy, cluster, 4, 5) == (0, None), "one token of request 0 against 32"


def test_a_request_that_comes_again_counts_once() -> None:
    policy, cluster = build(prompt_instances=0), fleet(0, 0)
    assert ask(policy, cluster, 0, 50) == (0, None)
    assert ask(policy, cluster, 0, 50) == (0, None)


@pytest.mark.parametrize("role", ["prefill", "semi_pd"])
def test_instances_of_other_roles_take_no_part_beside_two_colocated_ones(role: str) -> None:
    other: InstanceView = fake_instance(0)._replace(role=role)  # type: ignore[arg-type]
    views = (other, fake_instance(1), fake_instance(2))
    assert ask(build(), FakeCluster(views), 0, 10) == (1, 2)
    assert ask(build(), FakeCluster(views[:1]), 0, 10) == (0, None)
