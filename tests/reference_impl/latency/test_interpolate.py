"""Piecewise linear curves."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_impl.latency.interpolate import Curve, blend, curve_of, line, value, weighted

POINTS = st.dictionaries(st.integers(0, 10_000), st.floats(1e-6, 1e3), min_size=1, max_size=12)


def test_a_line_tells_value_slope_and_end(ramp: Curve) -> None:
    assert line(ramp, 5.0) == (1.5, 0.1, 10.0)
    at_the_bend, slope, end = line(ramp, 10.0)
    assert (at_the_bend, end) == (2.0, inf)
    assert slope == pytest.approx(0.3)


def test_beyond_its_ends_a_curve_goes_on(ramp: Curve) -> None:
    assert value(ramp, 30.0) == pytest.approx(8.0)
    assert value(((3.0,), (7.0,)), 100.0) == 7.0


def test_a_blend_holds_below_the_grid_and_extrapolates_above() -> None:
    assert blend((16, 256), 4) == ((0, 1.0),)
    assert blend((16, 256), 256) == ((1, 1.0),)
    assert dict(blend((0, 10), 15)) == {0: -0.5, 1: 1.5}


def test_a_longer_context_never_costs_less() -> None:
    assert curve_of({0: 2.0, 10: 1.0, 20: 3.0}) == ((0, 10, 20), (2.0, 2.0, 3.0))


def test_a_curve_is_continued_to_zero_and_stays_positive() -> None:
    assert curve_of({10: 1.0, 20: 1.5}) == ((0.0, 10, 20), (0.5, 1.0, 1.5))
    assert curve_of({10: 1.0, 20: 9.0})[1][0] == 0.5


@given(left=POINTS, right=POINTS, weight=st.floats(0, 4), at=st.floats(0, 20_000))
def test_weighted_curves_are_positive_and_rising(
    left: dict[float, float], right: dict[float, float], weight: float, at: float
) -> None:
    curve = weighted(((curve_of(left), 1 - weight), (curve_of(right), weight)))
    assert value(curve, at) > 0
    assert list(curve[1]) == sorted(curve[1])


@given(points=POINTS, at=st.floats(0, 10_000))
def test_a_weight_of_one_changes_nothing(points: dict[float, float], at: float) -> None:
    curve = curve_of(points)
    assert value(weighted(((curve, 1.0),)), at) == pytest.approx(value(curve, at))
