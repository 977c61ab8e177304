"""Transformations by chance: distributions against theory, determinism, prefixes of repeated requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from workloads.errors import TraceError
from workloads.trace import Trace


def long_trace(requests: int = 4_000, rate_rps: float = 2.0) -> Trace:
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1.0 / rate_rps, size=requests))
    tokens = np.arange(1, requests + 1, dtype=np.int32)
    return Trace("long", arrivals, tokens, tokens[::-1])


def test_sample_takes_distinct_rows_at_their_times() -> None:
    trace = long_trace()
    part = trace.sample(500, np.random.default_rng(1))
    assert len(np.unique(part.prompt_tokens)) == 500
    np.testing.assert_array_equal(part.arrival_s, trace.arrival_s[part.prompt_tokens - 1])


def test_retimed_gaps_are_exponential() -> None:
    trace = long_trace().retime_poisson(5.0, np.random.default_rng(2))
    gaps = np.diff(trace.arrival_s, prepend=0.0)
    assert stats.kstest(gaps, "expon", args=(0, 1 / 5.0)).pvalue > 0.01
    assert trace.prompt_tokens.tolist() == long_trace().prompt_tokens.tolist()


def test_bootstrap_draws_whole_requests_with_replacement() -> None:
    trace = long_trace(100).bootstrap(20_000, 50.0, np.random.default_rng(3))
    assert (trace.prompt_tokens + trace.output_tokens == 101).all()
    counts = np.bincount(trace.prompt_tokens, minlength=101)[1:]
    assert stats.chisquare(counts).pvalue > 0.01
    assert trace.mean_rate_rps == pytest.approx(50.0, rel=0.03)


def test_ties_are_spread_inside_their_tick_in_order() -> None:
    trace = Trace(
        "t", np.repeat([0.0, 3.0, 6.0], 1_000), np.arange(1, 3_001, dtype=np.int32), np.ones(3_000, dtype=np.int32)
    )
    spread = trace.spread_ties(3.0, np.random.default_rng(4))
    assert ((spread.arrival_s - trace.arrival_s >= 0) & (spread.arrival_s - trace.arrival_s < 3.0)).all()
    assert stats.kstest(spread.arrival_s, "uniform", args=(0, 9.0)).pvalue > 0.01
    with pytest.raises(TraceError, match=r"tick of the recording clock, 3\.0 s"):
        trace.spread_ties(4.0, np.random.default_rng(4))


def test_a_block_resample_varies_with_the_seed_and_only_with_it(assert_same: Callable[[Trace, Trace], None]) -> None:
    trace = long_trace()
    assert_same(trace.resample_blocks(7, 60.0), trace.resample_blocks(7, 60.0))
    one, other = (trace.resample_blocks(seed, 60.0).prompt_tokens.tolist() for seed in (7, 8))
    assert one != other


def test_a_block_resample_keeps_the_expected_rate() -> None:
    trace = long_trace()
    counts = [len(trace.resample_blocks(seed, 50.0)) for seed in range(60)]
    assert np.mean(counts) == pytest.approx(len(trace), rel=0.01)


def test_a_block_resample_keeps_gaps_inside_blocks() -> None:
    trace = long_trace(2_000)
    again = trace.resample_blocks(0, 100.0)
    recorded = np.diff(trace.arrival_s)
    follows = np.flatnonzero(np.diff(again.prompt_tokens) == 1)
    assert len(follows) > 0.97 * (len(again) - 12)
    np.testing.assert_allclose(
        np.diff(again.arrival_s)[follows], recorded[again.prompt_tokens[follows] - 1], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("block_s", [0.7, 3.0, 10.0, 1_000.0])
def test_any_block_length_gives_a_valid_trace(small_trace: Trace, block_s: float) -> None:
    circle_s = 10.0 * 6 / 5
    for seed in range(5):
        again = small_trace.resample_blocks(seed, block_s)
        assert 0.0 <= again.arrival_s[0] <= again.arrival_s[-1] <= circle_s
        Trace("again", again.arrival_s, again.prompt_tokens, again.output_tokens, again.prefix_ids, 4)


def test_copies_of_a_request_share_only_what_it_shared(small_trace: Trace) -> None:
    drawn = small_trace.bootstrap(200, 1.0, np.random.default_rng(5))
    assert drawn.prefix_ids is not None
    assert drawn.session_id is not None
    by_prompt = [ids for ids, prompt in zip(drawn.prefix_ids, drawn.prompt_tokens, strict=True) if prompt == 9]
    assert len(by_prompt) > 10
    assert {ids[0] for ids in by_prompt} == {0}
    assert len({ids[1] for ids in by_prompt}) == len({ids[2] for ids in by_prompt}) == len(by_prompt)
    assert len(set(drawn.session_id)) > 4
    Trace("again", drawn.arrival_s, drawn.prompt_tokens, drawn.output_tokens, drawn.prefix_ids, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda trace, rng: trace.sample(7, rng), r"sample of 7 \(allowed: integers 1\.\.6\)"),
        (lambda trace, rng: trace.retime_poisson(0.0, rng), "rate in requests/s 0.0"),
        (lambda trace, rng: trace.bootstrap(0, 1.0, rng), "bootstrap of 0"),
        (lambda trace, rng: trace.resample_blocks(0, 0.0), "block length in seconds 0.0"),
        (lambda trace, rng: trace.resample_blocks(-1, 1.0), "seed -1"),
        (lambda trace, rng: trace.slice(1, 2).resample_blocks(0, 1.0), "arrive at one time"),
    ],
)
def test_a_resample_that_makes_no_sense_is_refused(small_trace: Trace, change: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        change(small_trace, np.random.default_rng(0))
