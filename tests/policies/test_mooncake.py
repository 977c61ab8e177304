"""Expected times to first token, and what is refused early."""

from __future__ import annotations

import pytest

from policies.api import Dispatch, InstanceView, Reject
from policies.dispatch.mooncake import Mooncake
from policies.registry import PolicySpec
from policies.testing import FakeCluster, FakeEstimate, fake_instance, fake_request

IDS = tuple(range(50))
EXACT = FakeEstimate(base_s=0.0, prompt_token_s=1e-3, decode_s_each=1e-3, context_token_s=1e-5)


def build(**parameters: object) -> Mooncake:
    policy = PolicySpec.of("dispatch", "mooncake", parameters).build(0)
    assert isinstance(policy, Mooncake)
    return policy


def cluster(*instances: InstanceView) -> FakeCluster:
    return FakeCluster(instances, estimate=EXACT)


def decodes(*requests: int) -> FakeCluster:
    views = [fake_instance(i + 8, running_requests=each, role="decode") for i, each in enumerate(requests)]
    return FakeCluster(tuple(views), phase="decode", estimate=EXACT)


def test_time_to_first_token_is_queue_plus_the_uncached_prefill() -> None:
    policy = build()
    policy.dispatch(fake_request(0, 480, *IDS[:30]), cluster(fake_instance(1)))
    views = (fake_instance(0, waiting_tokens=100), fake_instance(1, waiting_tokens=500))
    chosen, ttft_s = policy.earliest(fake_request(1, 800, *IDS), cluster(*views))
    assert chosen.instance_id == 1
    assert ttft_s == pytest.approx(0.5 + 0.32 + 480e-5)


def test_a_longer_queue_outweighs_a_cached_prefix() -> None:
    policy = build()
    policy.dispatch(fake_request(0, 480, *IDS[:30]), cluster(fake_instance(1)))
    views = (fake_instance(0), fake_instance(1, waiting_tokens=500))
    assert policy.earliest(fake_request(1, 800, *IDS), cluster(*views))[0].instance_id == 0


def test_equal_times_go_to_the_fewest_requests() -> None:
    views = (fake_instance(0, running_requests=2), fake_instance(1, running_requests=1))
    assert build().earliest(fake_request(), cluster(*views))[0].instance_id == 1


@pytest.mark.parametrize(("prompt_tokens", "refused"), [(900, False), (901, True)])
def test_what_would_miss_its_ttft_target_is_refused_at_once(prompt_tokens: int, refused: bool) -> None:
    views = (fake_instance(0, waiting_tokens=100), fake_instance(1, waiting_tokens=200))
    decision = build(ttft_target_s=1.0).dispatch(fake_request(0, prompt_tokens), cluster(*views))
    assert isinstance(decision, Reject) == refused
    assert not refused or decision.reason == "TTFT 1.001 s expected, 1 s allowed"


def test_a_refused_prompt_is_not_remembered_as_cached() -> None:
    policy = build(ttft_target_s=0.5)
    policy.dispatch(fake_request(0, 800, *IDS), cluster(fake_instance(0)))
    assert policy.earliest(fake_request(1, 800, *IDS), cluster(fake_instance(0)))[1] == pytest.approx(0.8)


def test_a_colocated_instance_that_decodes_too_slowly_refuses() -> None:
    policy = build(tpot_target_s=0.02)
    assert isinstance(policy.dispatch(fake_request(), cluster(fake_instance(0, running_requests=17))), Dispatch)
    refused = policy.dispatch(fake_request(), cluster(fake_instance(0, running_requests=20)))
    assert refused == Reject("TPOT 0.0220 s expected, 0.02 s allowed")


def test_a_prompt_is_refused_if_the_decode_instances_will_be_full_when_it_gets_there() -> None:
    policy = build(tpot_target_s=0.02)
    prefill = fake_instance(0, role="prefill")
    assert isinstance(policy.dispatch(fake_request(), cluster(prefill)), Dispatch), "nothing is known of decode yet"
    policy.dispatch(fake_request(), decodes(17, 30))
    assert isinstance(policy.dispatch(fake_request(), cluster(prefill)), Dispatch)
    busier = fake_instance(0, role="prefill", waiting_requests=6)
    assert isinstance(policy.dispatch(fake_request(), cluster(busier)), Reject), "three more will be there each"


def test_a_hand_over_takes_the_shortest_expected_iteration_and_is_never_refused() -> None:
    policy = build(tpot_target_s=0.001)
    assert policy.dispatch(fake_request(), decodes(5, 3, 4)).instance_id == 9  # type: ignore[union-attr]
    few = fake_instance(8, running_requests=2, context_tokens=9000, role="decode")
    many = fake_instance(9, running_requests=60, context_tokens=8000, role="decode")
    both = FakeCluster((few, many), phase="decode", estimate=EXACT)
    assert policy.dispatch(fake_request(), both).instance_id == 8  # type: ignore[union-attr]
