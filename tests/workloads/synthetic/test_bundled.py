"""Bundled workloads: by name, with parameters, close to what they resemble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workloads.catalog import open_trace
from workloads.errors import TraceError
from workloads.storage import load, save
from workloads.synthetic.bundled import BUNDLED, Choice, bundled, names
from workloads.trace import Trace

Same = Callable[[Trace, Trace], None]


@pytest.mark.parametrize("name", names())
def test_a_bundled_workload_opens_by_name_and_survives_the_disk(
    no_traces: Path, name: str, tmp_path: Path, assert_same: Same
) -> None:
    trace = open_trace(f"{name}:requests=50,seed=3")
    assert (len(trace), trace.name) == (50, name)
    save(trace, tmp_path / "t.parquet")
    assert_same(load(tmp_path / "t.parquet"), trace)


def test_parameters_change_rate_size_and_seed(assert_same: Same) -> None:
    by_name = open_trace("bundled:sharegpt-like:rate_rps=20,requests=3000,seed=2")
    assert_same(by_name, bundled("sharegpt-like", Choice(rate_rps=20, requests=3_000, seed=2)))
    assert by_name.mean_rate_rps == pytest.approx(20.0, rel=0.06)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bundled:sharegpt", r"no bundled workload 'sharegpt' \(allowed: bundled:sharegpt-like, "),
        ("bundled:sharegpt-like:rate=3", r"unknown key 'rate' \(allowed: rate_rps, requests, seed\)"),
        ("bundled:sharegpt-like:rate_rps=0", "rate_rps=0"),
        ("bundled:sharegpt-like:requests=1e9", r"requests=1000000000\.0"),
        ("bundled:sharegpt-like:seed=x", "seed='x'"),
    ],
)
def test_a_wrong_name_or_parameter_shows_the_choices(text: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        open_trace(text)


def test_shared_prefixes_dominate_their_workload() -> None:
    trace = bundled("shared-prefix", Choice(requests=2_000))
    assert trace.prefix_ids is not None
    assert trace.prefix_block_tokens == 16
    assert len({ids[:64] for ids in trace.prefix_ids}) == 32


def test_the_azure_look_alike_resembles_the_trace(traces_folder: Path) -> None:
    real, like = open_trace("azure_2023_conv"), bundled("azure-conv-like", Choice(requests=10_000))
    assert like.mean_rate_rps == pytest.approx(real.mean_rate_rps, rel=0.03)
    for column in ("prompt_tokens", "output_tokens"):
        for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
            expected = np.quantile(getattr(real, column), quantile)
            assert np.quantile(getattr(like, column), quantile) == pytest.approx(expected, rel=0.15), (column, quantile)


def test_every_bundled_workload_says_what_it_is() -> None:
    assert all(workload.summary for workload in BUNDLED.values())
