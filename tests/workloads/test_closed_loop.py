"""Sessions in closed loop: what a trace has to say, and that sessions stay whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workloads import closed_loop
from workloads.errors import TraceError
from workloads.trace import Trace

PARENTS = (-1, 0, -1, 1, 2, -1)
"""Two sessions that overlap (rows 0, 1, 3 and 2, 4) and one request that stands alone."""


def sessions(**columns: Any) -> Trace:
    values: dict[str, Any] = {
        "turn": np.array([0, 1, 0, 2, 1, 0]),
        "parent_row": np.array(PARENTS),
        "think_s": np.array([0.0, 1.0, 0.0, 2.0, 3.0, 0.0]),
        **columns,
    }
    lengths = np.full(6, 8, np.int32), np.full(6, 2, np.int32)
    return Trace("s", np.array([0.0, 5.0, 6.0, 9.0, 12.0, 20.0]), *lengths, **values)


def test_who_waits_for_whom() -> None:
    assert closed_loop.followers(sessions()) == {0: [(1, 1.0)], 1: [(3, 2.0)], 2: [(4, 3.0)]}
    assert closed_loop.first_turns(sessions()).tolist() == [0, 2, 5]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"parent_row": None, "think_s": None}, r"s: no column parent_row: .* leave closed_loop out"),
        ({"think_s": None}, r"s: no column think_s: "),
        (
            {"parent_row": np.array([-1, 0, -1, -1, 2, -1]), "think_s": np.zeros(6)},
            r"s, row 3: turn 2 without a parent",
        ),
    ],
)
def test_what_the_trace_does_not_say_is_not_guessed(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        closed_loop.check(sessions(**columns))


@pytest.mark.parametrize("parents", [(-1, 1, -1, 1, 2, -1), (-1, 3, -1, 1, 2, -1), (-1, 0, -1, 1, 9, -1)])
def test_a_parent_that_comes_later_or_is_not_there_is_refused_with_the_trace(parents: tuple[int, ...]) -> None:
    with pytest.raises(TraceError, match="a row before this one, or -1 for none"):
        sessions(parent_row=np.array(parents))


def test_the_first_requests_are_whole_sessions() -> None:
    assert closed_loop.head(sessions(), 6).parent_row.tolist() == list(PARENTS)  # type: ignore[union-attr]
    for count in (3, 4):
        found = closed_loop.head(sessions(), count)
        assert found.arrival_s.tolist() == [0.0, 5.0, 9.0]
        closed_loop.check(found)
    assert closed_loop.head(sessions(), 5).arrival_s.tolist() == [0.0, 5.0, 6.0, 9.0, 12.0]
    with pytest.raises(TraceError, match=r"the first session has 3 requests, 2 were asked for"):
        closed_loop.head(sessions(), 2)


def test_a_window_holds_the_sessions_that_begin_in_it() -> None:
    found = closed_loop.window(sessions(), 6.0, 20.0)
    assert found.arrival_s.tolist() == [0.0, 6.0]
    closed_loop.check(found)
    with pytest.raises(TraceError, match="no session begins between 7"):
        closed_loop.window(sessions(), 7.0, 20.0)


def test_a_trace_that_was_cut_through_its_sessions_is_refused() -> None:
    with pytest.raises(TraceError, match=r"row 0: turn 1 without a parent \(1 in all\)"):
        closed_loop.check(sessions().window(5.0, 13.0).slice(0, 4))
