"""Shares and contention."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.api import LaneKind
from reference_impl.latency.contention import ContentionModel
from reference_impl.latency.errors import ProfileError

LANES = st.sampled_from(["mixed", "prefill", "decode"])
SHARES = st.integers(1, 100)


@pytest.mark.parametrize("lane", ["mixed", "prefill", "decode"])
def test_a_lane_alone_on_the_whole_device_runs_at_full_speed(lane: LaneKind) -> None:
    assert ContentionModel().rate(lane, 100, 0, False) == pytest.approx(1.0, abs=1e-15)


def test_prefill_goes_as_its_share() -> None:
    assert ContentionModel().rate("prefill", 25, 100, False) == pytest.approx(0.25)


def test_decode_has_the_floor_of_semi_pd_figure_10(calibration: Path) -> None:
    """The figure's points, both axes relative to the whole device; the paper's own fit misses one by 7 %."""
    source = calibration.parent / "paper" / "semi_pd" / "fig10_latency_model.csv"
    if not source.exists():
        pytest.skip("the digitised figure is not at hand")
    with source.open(encoding="utf-8") as stream:
        points = [(float(row["x_value"]), float(row["value"])) for row in csv.DictReader(stream) if row["panel"] == "b"]
    assert len(points) == 17
    for inverse_share, slowdown in points:
        rate = ContentionModel().rate("decode", round(100 / inverse_share), 0, False)
        assert 1 / rate == pytest.approx(slowdown, rel=0.08)


def test_shares_that_add_up_to_more_than_the_device_are_cut() -> None:
    alone = ContentionModel(gamma_prefill=0.0, gamma_decode=0.0)
    assert alone.rate("prefill", 100, 100, True) == pytest.approx(0.5)
    assert alone.rate("prefill", 80, 100, False) == pytest.approx(0.8)
    assert alone.rate("prefill", 60, 40, True) == pytest.approx(0.6)


def test_gamma_counts_only_while_both_lanes_are_busy() -> None:
    shared = ContentionModel(gamma_prefill=0.25, gamma_decode=1.0)
    assert shared.rate("prefill", 50, 50, True) == pytest.approx(shared.rate("prefill", 50, 50, False) / 1.25)
    assert shared.rate("decode", 50, 50, True) == pytest.approx(shared.rate("decode", 50, 50, False) / 2)


@given(lane=LANES, own=SHARES, other=SHARES, busy=st.booleans(), gamma=st.floats(0, 3))
def test_a_rate_is_positive_and_at_most_one(lane: LaneKind, own: int, other: int, busy: bool, gamma: float) -> None:
    rate = ContentionModel(gamma_prefill=gamma, gamma_decode=gamma).rate(lane, own, other, busy)
    assert 0 < rate <= 1 + 1e-12


@given(lane=LANES, own=st.integers(1, 99), other=SHARES, busy=st.booleans())
def test_a_larger_share_never_slows_a_lane(lane: LaneKind, own: int, other: int, busy: bool) -> None:
    shared = ContentionModel()
    assert shared.rate(lane, own + 1, other, busy) >= shared.rate(lane, own, other, busy)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"gamma_decode": -0.1}, "gamma_decode is -0.1; it must be 0"),
        ({"decode_floor": 1.0}, "decode_floor is 1.0"),
    ],
)
def test_impossible_parameters_are_refused(keywords: dict[str, float], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        ContentionModel(**keywords)


def test_provenance_says_what_is_assumed() -> None:
    assert "uncalibrated" in ContentionModel().provenance
    assert "Fig 10" in ContentionModel().provenance
