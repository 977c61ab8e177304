"""Transformations without chance: values, alignment of the columns, refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.errors import TraceError
from workloads.trace import Trace


def test_slice_keeps_rows_and_times_of_every_column(small_trace: Trace) -> None:
    cut = small_trace.slice(2, 3)
    assert cut.arrival_s.tolist() == [1.0, 2.5, 4.0]
    assert cut.prompt_tokens.tolist() == [9, 1, 4]
    assert cut.output_tokens.tolist() == [7, 2, 100]
    assert cut.prefix_ids == ((0, 4, 5), (), (0,))
    assert (cut.session_id, cut.tenant, cut.slo_class) == (("a", "c", "a"), ("y", "y", "x"), ("chat",) * 3)


def test_head_of_more_than_there_is_keeps_all(small_trace: Trace) -> None:
    assert len(small_trace.head(2)) == 2
    assert len(small_trace.head(100)) == 6


def test_window_is_half_open_and_starts_at_zero(small_trace: Trace) -> None:
    cut = small_trace.window(1.0, 4.0)
    assert cut.arrival_s.tolist() == [0.0, 0.0, 1.5]
    assert cut.prompt_tokens.tolist() == [5, 9, 1]


def test_shift_and_scale_rate_change_times_only(small_trace: Trace) -> None:
    moved = small_trace.shift(2.0).scale_rate(4.0)
    assert moved.arrival_s.tolist() == [0.5, 0.75, 0.75, 1.125, 1.5, 3.0]
    assert moved.prompt_tokens.tolist() == small_trace.prompt_tokens.tolist()
    assert moved.mean_rate_rps == pytest.approx(4.0 * (small_trace.mean_rate_rps or 0.0))


def test_clip_shortens_the_prompt_and_its_ids_first(small_trace: Trace) -> None:
    clipped = small_trace.clip_total_tokens(10)
    assert clipped.prompt_tokens.tolist() == [7, 5, 3, 1, 1, 6]
    assert clipped.output_tokens.tolist() == [3, 1, 7, 2, 9, 4]
    assert clipped.prefix_ids == ((0, 1), (2, 3), (0,), (), (0,), (6, 7))
    assert "4 prompts, 1 outputs" in clipped.metadata["transformations"]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1), st.integers(2, 60))
def test_clipped_requests_fit_and_shorten_no_more_than_needed(lengths: list[tuple[int, int]], limit: int) -> None:
    prompt, output = np.array(lengths, dtype=np.int32).T
    clipped = Trace("t", np.zeros(len(lengths)), prompt, output).clip_total_tokens(limit)
    total = clipped.prompt_tokens + clipped.output_tokens
    assert (total <= limit).all()
    shortened = (clipped.prompt_tokens < prompt) | (clipped.output_tokens < output)
    assert (total[shortened] == limit).all()
    assert (clipped.prompt_tokens[clipped.output_tokens < output] == 1).all()


def test_each_transformation_is_written_into_the_metadata(small_trace: Trace) -> None:
    changed = small_trace.head(5).scale_rate(8)
    assert changed.metadata == {"licence": "none", "transformations": "head(5); scale_rate(8)"}
    assert small_trace.metadata == {"licence": "none"}


def test_a_derived_trace_is_checked_like_any_other(small_trace: Trace) -> None:
    with pytest.raises(TraceError, match="column arrival_s: inf"):
        small_trace.scale_rate(1e-320)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda trace: trace.slice(6, 1), r"first 6 \(allowed: integers 0\.\.5\)"),
        (lambda trace: trace.slice(-1, 1), "first -1"),
        (lambda trace: trace.head(0), "count 0"),
        (lambda trace: trace.head(1.5), "count 1.5"),
        (lambda trace: trace.window(5.0, 6.0), "no request between 5.0 and 6.0 s"),
        (lambda trace: trace.window(3.0, 3.0), "0 <= start < end"),
        (lambda trace: trace.shift(-0.5), "shift by -0.5 s"),
        (lambda trace: trace.shift(float("nan")), "shift by nan s"),
        (lambda trace: trace.scale_rate(0.0), r"rate factor 0.0 \(allowed: finite numbers > 0\)"),
        (lambda trace: trace.clip_total_tokens(1), r"total tokens 1 \(allowed: integers from 2 on\)"),
    ],
)
def test_a_transformation_that_makes_no_sense_is_refused(
    small_trace: Trace, change: Callable[[Trace], Trace], message: str
) -> None:
    with pytest.raises(TraceError, match=message):
        change(small_trace)


def test_tenants_get_their_slo_classes(small_trace: Trace) -> None:
    trace = small_trace.with_slo_classes({"y": "batch"})
    assert trace.slo_class == ("chat", "chat", "batch", "batch", "chat", "chat")
    assert trace.metadata["transformations"] == "with_slo_classes(y=batch)"
    with pytest.raises(TraceError, match=r"no tenant 'z' \(allowed: x, y\)"):
        small_trace.with_slo_classes({"z": "batch"})
