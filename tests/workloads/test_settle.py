"""Which rows are kept when times are out of order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.errors import TraceError
from workloads.formats import parse_bytes
from workloads.settle import longest_ascending


def longest(times: list[int]) -> int:
    """By definition: the longest ascending subsequence that ends at each entry."""
    best: list[int] = []
    for row, time in enumerate(times):
        best.append(1 + max((best[before] for before in range(row) if times[before] <= time), default=0))
    return max(best, default=0)


@given(st.lists(st.integers(0, 6), max_size=12))
def test_the_fewest_rows_are_lost_and_the_rest_ascends(times: list[int]) -> None:
    keep = longest_ascending([float(time) for time in times])
    kept = [time for time, kept in zip(times, keep, strict=True) if kept]
    assert kept == sorted(kept)
    assert len(kept) == longest(times)


def test_of_two_equal_choices_the_row_that_goes_back_is_left_out() -> None:
    assert longest_ascending([0.0, -6.0, 4.0]).tolist() == [True, False, True]


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(TraceError, match=r"invalid='ignore' \(allowed: 'error' .* 'drop'"):
        parse_bytes("x.csv", b"", "ignore")  # type: ignore[arg-type] # what a command line might pass
