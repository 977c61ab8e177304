"""Shared prefixes: who shares what, how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from workloads.errors import TraceError
from workloads.synthetic import Fixed, Poisson, SharedPrefix, SyntheticSpec, synthesise
from workloads.synthetic.build import build_plain
from workloads.trace import Trace

SPEC = SyntheticSpec(
    requests=5_000,
    arrivals=Poisson(1.0),
    prompt=Fixed(21),
    output=Fixed(1),
    prefix=SharedPrefix(groups=5, tokens=40, block_tokens=16),
)


def test_requests_of_a_group_share_the_whole_blocks_of_its_prefix_and_nothing_else() -> None:
    trace = synthesise(SPEC, seed=0)
    assert trace.prefix_ids is not None
    assert set(trace.prompt_tokens.tolist()) == {61}
    assert {len(ids) for ids in trace.prefix_ids} == {4}
    heads = {ids[:2] for ids in trace.prefix_ids}
    assert len(heads) == 5
    Trace("valid", trace.arrival_s, trace.prompt_tokens, trace.output_tokens, trace.prefix_ids, 16)
    tails = [block for ids in trace.prefix_ids for block in ids[2:]]
    assert len(set(tails)) == len(tails)
    assert not set(tails) & {block for head in heads for block in head}


def test_uniform_groups_are_equally_popular() -> None:
    group = SharedPrefix(groups=20, tokens=16).choose_groups(50_000, np.random.default_rng(1))
    assert stats.chisquare(np.bincount(group, minlength=20)).pvalue > 0.01


def test_zipf_groups_follow_the_power_of_their_rank() -> None:
    prefix = SharedPrefix(groups=50, tokens=16, popularity="zipf", exponent=1.2)
    group = prefix.choose_groups(50_000, np.random.default_rng(2))
    weights = np.arange(1, 51) ** -1.2
    assert stats.chisquare(np.bincount(group, minlength=50), 50_000 * weights / weights.sum()).pvalue > 0.01


def test_changing_the_prefixes_leaves_the_other_streams_alone() -> None:
    assert SPEC.prefix is not None
    one = synthesise(SPEC, seed=3)
    other = synthesise(replace(SPEC, prefix=replace(SPEC.prefix, popularity="zipf")), seed=3)
    np.testing.assert_array_equal(one.arrival_s, other.arrival_s)
    assert one.prefix_ids != other.prefix_ids


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SharedPrefix(0, 16), "groups=0"),
        (lambda: SharedPrefix(1, 15), "tokens=15 .*at least one block of 16"),
        (
            lambda: build_plain("prefix", SharedPrefix, "groups=1,tokens=16,popularity=popular"),
            r"popularity='popular' \(allowed: uniform, zipf\)",
        ),
        (lambda: SharedPrefix(1, 16, "zipf", -1.0), "exponent=-1"),
        (lambda: SharedPrefix(1, 16, block_tokens=0), "block_tokens=0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        make()
