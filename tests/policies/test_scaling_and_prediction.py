"""The null policies of scaling and prediction, and predictions of a stated quality."""

from __future__ import annotations

import pytest

from policies.api import FleetView, LengthPredictor, Observer, PolicyEvent
from policies.registry import PolicySpec
from policies.testing import fake_instance, fake_request


def test_fixed_asks_for_what_is_configured_once() -> None:
    policy = PolicySpec.parse("fixed", "scaling").build(0)
    fleet = FleetView(0.0, (fake_instance(0),), 5.0, None, {"prefill": 2, "decode": 6})
    assert policy.scale(fleet).targets == {"prefill": 2, "decode": 6}
    assert policy.interval_s is None


def test_no_prediction_says_nothing_and_the_oracle_the_truth() -> None:
    request = fake_request()._replace(oracle_output_tokens=42)
    none = PolicySpec.parse("none", "prediction").build(0)
    oracle = PolicySpec.parse("oracle", "prediction").build(0)
    assert (none.predict(request), none.oracle) == (None, False)
    assert (oracle.predict(request), oracle.oracle) == (42, True)


def test_mean_says_what_it_was_told() -> None:
    assert PolicySpec.parse("mean:tokens=321", "prediction").build(0).predict(fake_request()) == 321


def learned(policy: LengthPredictor, *ends: tuple[str | None, int]) -> None:
    """One request after the other of these tenants is asked about and finishes with so many tokens (0: is rejected)."""
    assert isinstance(policy, Observer)
    for request_id, (tenant, tokens) in enumerate(ends):
        policy.predict(fake_request(request_id)._replace(tenant=tenant))
        policy.observe(PolicyEvent("finished" if tokens else "rejected", 0.0, request_id, None, tokens))


def test_a_learnt_mean_starts_from_its_prior_and_moves_with_each_answer() -> None:
    policy = PolicySpec.parse("mean_learned:prior_tokens=100,prior_requests=4", "prediction").build(0)
    assert policy.predict(fake_request()) == 100
    learned(policy, (None, 600))
    assert policy.predict(fake_request()) == (4 * 100 + 600) / 5
    learned(policy, (None, 0))
    assert policy.predict(fake_request()) == 200, "a rejected request teaches nothing"
    learned(policy, *[(None, 600)] * 1000)
    assert policy.predict(fake_request()) == pytest.approx(600, abs=3)


def test_each_tenant_has_a_mean_of_its_own_and_a_new_one_that_of_all() -> None:
    policy = PolicySpec.parse("mean_learned:by=tenant,prior_requests=1", "prediction").build(0)
    learned(policy, *[("short", 10), ("long", 1000)] * 500)
    said = {name: policy.predict(fake_request()._replace(tenant=name)) for name in ("short", "long", "new", None)}
    assert said["short"] == pytest.approx(10, abs=2)
    assert said["long"] == pytest.approx(1000, abs=2)
    assert said["new"] == said[None] == pytest.approx(505, abs=1)


def test_the_end_of_a_request_that_was_never_asked_about_teaches_nothing() -> None:
    policy = PolicySpec.parse("mean_learned", "prediction").build(0)
    policy.observe(PolicyEvent("finished", 0.0, 7, None, 4000))
    assert policy.predict(fake_request()) == 256


@pytest.mark.parametrize(("truth", "middle"), [(1, 64), (128, 64), (129, 192), (1000, 960)])
def test_a_right_bucket_answers_its_middle(truth: int, middle: int) -> None:
    policy = PolicySpec.parse("bucketed_oracle:accuracy=1", "prediction").build(0)
    assert policy.predict(fake_request()._replace(oracle_output_tokens=truth)) == middle
    assert policy.oracle


@pytest.mark.parametrize("error", ["neighbour", "geometric", "uniform"])
def test_buckets_are_as_often_right_as_stated(error: str) -> None:
    policy = PolicySpec.parse(f"bucketed_oracle:error={error}", "prediction").build(1)
    request = fake_request()._replace(oracle_output_tokens=10 * 128)
    off = [policy.predict(request) // 128 - 9 for _ in range(20_000)]
    assert off.count(0) / len(off) == pytest.approx(0.849, abs=0.01)
    wrong = [places for places in off if places]
    assert sum(wrong) / len(wrong) == pytest.approx({"uniform": 6.7}.get(error, 0), abs=0.5)
    near = sum(abs(places) == 1 for places in wrong) / len(wrong)
    assert near == pytest.approx({"neighbour": 1.0, "geometric": 0.5, "uniform": 2 / 31}[error], abs=0.03)


def test_no_bucket_lies_below_zero() -> None:
    policy = PolicySpec.parse("bucketed_oracle:accuracy=0,error=geometric", "prediction").build(1)
    request = fake_request()._replace(oracle_output_tokens=5)
    assert min(policy.predict(request) for _ in range(500)) == 192
