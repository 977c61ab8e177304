"""Times that are equal but for the last bits of a float are one moment."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from reference_impl.core.moments import time_key


@given(st.integers(0, 10**6), st.integers(0, 2**22))
def test_sums_of_round_costs_are_one_moment_however_they_were_added_up(tenth_ms: int, parts: int) -> None:
    """Arrivals come at tenths of a millisecond, iterations take multiples of 2^-13 s: halves of a nanosecond occur."""
    time_s = tenth_ms * 1e-4 + parts * 2.0**-13
    assert time_key(math.nextafter(time_s, 0.0)) == time_key(time_s) == time_key(math.nextafter(time_s, math.inf))


def test_a_nanosecond_apart_is_two_moments() -> None:
    assert time_key(1.0) + 1 == time_key(1.0 + 1e-9)
