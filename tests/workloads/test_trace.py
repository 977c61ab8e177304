"""What a trace accepts, and what it says when it does not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workloads.errors import TraceError
from workloads.trace import Trace

GOOD: dict[str, Any] = {"name": "t", "arrival_s": [0.0, 1.0], "prompt_tokens": [3, 4], "output_tokens": [1, 2]}


def test_lists_become_read_only_columns_of_the_final_types() -> None:
    trace = Trace(**GOOD)
    assert (trace.arrival_s.dtype, trace.prompt_tokens.dtype) == (np.dtype(np.float64), np.dtype(np.int32))
    with pytest.raises(ValueError, match="read-only"):
        trace.arrival_s[0] = 5.0


def test_the_callers_array_is_copied() -> None:
    arrivals = np.array([0.0, 1.0])
    trace = Trace(**GOOD | {"arrival_s": arrivals})
    arrivals[0] = 0.5
    assert trace.arrival_s[0] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrival_s": [1.0, 0.5]}, r"t, row 1, column arrival_s: 0\.5 is not allowed \(allowed: finite .* ascending"),
        ({"arrival_s": [-1.0, 0.5]}, "row 0, column arrival_s: -1.0"),
        ({"arrival_s": [0.0, float("nan")]}, "row 1, column arrival_s: nan"),
        ({"arrival_s": [0.0, float("inf")]}, "row 1, column arrival_s: inf"),
        ({"arrival_s": ["a", "b"]}, "column arrival_s"),
        ({"arrival_s": [[0.0], [1.0]]}, "of shape 2x1"),
        ({"arrival_s": [], "prompt_tokens": [], "output_tokens": []}, "no requests"),
        ({"prompt_tokens": [0, 4]}, r"column prompt_tokens: 0 is not allowed \(allowed: integers 1\.\.2147483647"),
        ({"prompt_tokens": [3, 2**31]}, "row 1, column prompt_tokens: 2147483648"),
        ({"prompt_tokens": [3, 2**70]}, "column prompt_tokens: object"),
        ({"output_tokens": [1.5, 2]}, "row 0, column output_tokens: 1.5"),
        ({"output_tokens": [True, True]}, "column output_tokens: bool"),
        ({"output_tokens": [1]}, r"column output_tokens: 1 values \(allowed: one per arrival, 2\)"),
        ({"output_tokens": [[1], [1, 2]]}, "not a column of numbers"),
        ({"session_id": ("a",)}, "column session_id: 1 values"),
        ({"tenant": ("a", 7)}, "row 1, column tenant: 7 is not allowed"),
        ({"name": ""}, "name"),
        ({"prefix_ids": ((1,), (2,))}, "come together"),
        ({"prefix_block_tokens": 16}, "come together"),
        ({"prefix_ids": ((1,), (2,)), "prefix_block_tokens": 0}, "prefix_block_tokens: 0"),
        ({"prefix_ids": ((1,),), "prefix_block_tokens": 4}, "column prefix_ids: 1 values"),
        ({"prefix_ids": ((1, 2), (3,)), "prefix_block_tokens": 4}, r"row 0, column prefix_ids: '2 ids' .*at most 1"),
        ({"prefix_ids": ((1,), (-3,)), "prefix_block_tokens": 4}, "row 1, column prefix_ids: -3"),
        ({"prefix_ids": ((1.5,), (3,)), "prefix_block_tokens": 4}, "column prefix_ids: float64"),
        ({"prefix_ids": ((1,), (2**63,)), "prefix_block_tokens": 4}, "column prefix_ids"),
        ({"prefix_ids": (("x",), (3,)), "prefix_block_tokens": 4}, "column prefix_ids"),
        ({"prefix_ids": ((1, 2), (3, 2)), "prefix_block_tokens": 2}, r"row 1, column prefix_ids: \(3, 2\).*chained"),
        ({"prefix_ids": ((1, 1), (3,)), "prefix_block_tokens": 2}, r"row 0, column prefix_ids: \(1, 1\).*chained"),
    ],
)
def test_a_bad_column_is_refused_naming_row_value_and_what_is_allowed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        Trace(**GOOD | change)


def test_equal_arrival_times_are_allowed() -> None:
    assert Trace(**GOOD | {"arrival_s": [1.0, 1.0]}).mean_rate_rps is None


def test_rate_counts_gaps_not_requests() -> None:
    trace = Trace("t", np.array([5.0, 6.0, 7.0]), np.array([1, 1, 1]), np.array([1, 1, 1]))
    assert (len(trace), trace.duration_s, trace.mean_rate_rps) == (3, 2.0, 1.0)


def test_a_trace_survives_pickling(small_trace: Trace, assert_same: Callable[[Trace, Trace], None]) -> None:
    assert_same(pickle.loads(pickle.dumps(small_trace)), small_trace)


def test_repr_stays_short(small_trace: Trace) -> None:
    assert repr(small_trace) == "Trace('small', 6 requests, 10.0 s)"
