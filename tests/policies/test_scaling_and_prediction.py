"""The null policies of scaling and prediction, and predictions of a stated quality."""

from __future__ import annotations

import pytest

from policies.api import FleetView
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
