"""The numbers that describe a trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from workloads.catalog import open_trace
from workloads.summary import describe, dispersion, rate_per_bin, reuse_so_far
from workloads.synthetic import Fixed, Gamma, Poisson, SyntheticSpec, synthesise
from workloads.trace import Trace


def test_numbers_of_a_small_trace(small_trace: Trace) -> None:
    numbers = describe(small_trace)
    assert numbers["requests"] == 6
    assert numbers["mean_rate_rps"] == 0.5
    assert numbers["prompt_tokens_mean"] == 6.5
    assert numbers["output_tokens_max"] == 100
    assert numbers["prefix_hit_ratio"] == pytest.approx(2 / 11)


def test_what_cannot_be_computed_is_absent() -> None:
    one = np.array([1], dtype=np.int32)
    numbers = describe(Trace("t", np.array([0.0]), one, one, ((),), 16))
    assert not {"mean_rate_rps", "interarrival_cv", "prefix_hit_ratio"} & set(numbers)


@pytest.mark.parametrize("name", ["azure_2023_conv", "azure_2023_code", "mooncake_conversation", "mooncake_synthetic"])
def test_numbers_agree_with_the_published_ones(traces_folder: Path, name: str) -> None:
    published = json.loads((traces_folder / "stats.json").read_text())[name]
    numbers = describe(open_trace(name))
    assert numbers["requests"] == published["rows"]
    assert numbers["interarrival_cv"] == pytest.approx(published["iat_cv"], rel=1e-3)
    for column in ("prompt_tokens", "output_tokens"):
        for quantile in ("p50", "p90", "p99", "max", "mean"):
            assert numbers[f"{column}_{quantile}"] == pytest.approx(published[column][quantile], rel=1e-4)


@pytest.mark.parametrize(("name", "ratio"), [("mooncake_conversation", 0.341), ("mooncake_synthetic", 0.640)])
def test_block_resampling_keeps_the_prefix_hit_ratio(traces_folder: Path, name: str, ratio: float) -> None:
    trace = open_trace(name)
    assert describe(trace)["prefix_hit_ratio"] == pytest.approx(ratio, abs=5e-4)
    resampled = [describe(trace.resample_blocks(seed, 60.0))["prefix_hit_ratio"] for seed in range(4)]
    assert np.mean(resampled) == pytest.approx(ratio, abs=0.03)


def test_poisson_has_a_dispersion_of_one_and_bursts_have_more() -> None:
    calm, bursty = (
        synthesise(SyntheticSpec(20_000, arrivals, Fixed(1), Fixed(1)), 0)
        for arrivals in (Poisson(5.0), Gamma(rate_rps=5.0, cv=3.0))
    )
    widths, indices = dispersion(calm)
    assert widths[0] == pytest.approx(0.2, rel=0.02)
    assert indices[:8] == pytest.approx(1.0, abs=0.1)
    assert dispersion(bursty)[1][8] == pytest.approx(9.0, rel=0.3)


def test_reuse_so_far_ends_at_the_hit_ratio(small_trace: Trace) -> None:
    assert reuse_so_far(small_trace)[-1] == describe(small_trace)["prefix_hit_ratio"]
    assert reuse_so_far(small_trace).tolist()[:3] == [0.0, 0.0, pytest.approx(1 / 7)]


def test_what_one_request_does_not_show_is_empty(small_trace: Trace) -> None:
    one = small_trace.head(1)
    assert [len(part) for part in (*rate_per_bin(one), *dispersion(one))] == [0, 0, 0, 0]
