"""The null policies of scaling and prediction, and the oracle."""

from __future__ import annotations

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
