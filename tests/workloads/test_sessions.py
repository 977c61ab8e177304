"""Turns, parents and pauses: what is accepted, and what cutting a trace leaves of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workloads.errors import TraceError
from workloads.sessions import describe
from workloads.storage import load, save
from workloads.trace import Trace

GOOD: dict[str, Any] = {"name": "t", "arrival_s": [0.0, 1.0], "prompt_tokens": [3, 4], "output_tokens": [1, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turn": [0, -1]}, "row 1, column turn: -1"),
        ({"turn": [0, 1.5]}, r"row 1, column turn: 1\.5"),
        ({"turn": [0]}, r"column turn: int64 of 1 values \(allowed: 2, one per arrival"),
        ({"parent_row": [-1, 1]}, "row 1, column parent_row: 1 .*a row before this one"),
        ({"parent_row": [0, -1]}, "row 0, column parent_row: 0"),
        ({"parent_row": [-1, -2]}, "row 1, column parent_row: -2"),
        ({"think_s": [0.0, 1.0]}, "give parent_row too"),
        ({"parent_row": [-1, 0], "think_s": [0.0, -1.0]}, "row 1, column think_s: -1.0"),
        ({"parent_row": [-1, 0], "think_s": [0.0, float("nan")]}, "row 1, column think_s: nan"),
        ({"parent_row": [-1, -1], "think_s": [0.0, 1.0]}, "0 for a request without a parent"),
        ({"parent_row": [[-1], [0, 1]]}, "column parent_row: not a column of numbers"),
        ({"turn": ["a", "b"]}, "column turn"),
    ],
)
def test_what_no_session_can_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        Trace(**GOOD | change)


def test_a_cut_trace_keeps_the_parents_that_are_left(small_trace: Trace) -> None:
    later = small_trace.slice(1, 4)
    assert later.parent_row is not None
    assert later.think_s is not None
    assert later.parent_row.tolist() == [-1, -1, -1, 1]
    assert later.think_s.tolist() == [0.0, 0.0, 0.0, 1.25]
    assert later.turn is not None
    assert later.turn.tolist() == [0, 1, 0, 2]


def test_copies_in_another_order_stand_for_themselves(small_trace: Trace) -> None:
    copies = small_trace.bootstrap(20, 2.0, np.random.default_rng(0))
    assert copies.turn is None
    assert copies.parent_row is None
    assert copies.think_s is None


def test_new_times_keep_the_turns(small_trace: Trace) -> None:
    faster = small_trace.scale_rate(3.0)
    assert faster.parent_row is not None
    assert faster.parent_row.tolist() == [-1, -1, 0, -1, 2, -1]


def test_the_columns_survive_the_disk(
    small_trace: Trace, tmp_path: Path, assert_same: Callable[[Trace, Trace], None]
) -> None:
    save(small_trace, tmp_path / "t.parquet")
    assert_same(load(tmp_path / "t.parquet"), small_trace)


def test_the_numbers_count_sessions_and_pauses(small_trace: Trace) -> None:
    numbers = describe(small_trace)
    assert (numbers["sessions"], numbers["turns_with_a_parent"]) == (4, 2)
    assert numbers["think_s_p50"] == 0.875
