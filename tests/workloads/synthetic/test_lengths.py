"""Length distributions against theory, with fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from workloads.errors import TraceError
from workloads.storage import save
from workloads.synthetic import LENGTHS, Fixed, Lognormal, QuantileTable, Recorded
from workloads.synthetic.lengths import shipped_table
from workloads.trace import Trace

N = 100_000


def test_fixed_lengths_are_all_the_same() -> None:
    assert set(Fixed(7).tokens(10, np.random.default_rng(0)).tolist()) == {7}


def test_lognormal_lengths_have_the_stated_mean_and_spread() -> None:
    tokens = Lognormal(mean_tokens=5_000.0, sigma=0.7).tokens(N, np.random.default_rng(1))
    assert tokens.mean() == pytest.approx(5_000.0, rel=0.01)
    location = math.log(5_000.0) - 0.7**2 / 2
    assert stats.kstest(np.log(tokens), "norm", args=(location, 0.7)).pvalue > 0.01


def test_lengths_are_whole_positive_and_clipped() -> None:
    tokens = Lognormal(mean_tokens=2.0, sigma=3.0, max_tokens=9).tokens(N, np.random.default_rng(2))
    assert (tokens.min(), tokens.max(), tokens.dtype) == (1, 9, np.dtype(np.int32))


def test_an_extreme_spread_does_not_overflow() -> None:
    tokens = Lognormal(mean_tokens=1e30, sigma=10.0).tokens(N, np.random.default_rng(3))
    assert tokens.max() == 2**31 - 1
    assert tokens.min() == 1


@pytest.mark.parametrize(
    "name", ["sharegpt-like.prompt", "sharegpt-like.output", "azure-conv-like.prompt", "azure-conv-like.output"]
)
def test_a_shipped_table_gives_its_quantiles_back(name: str) -> None:
    tokens = QuantileTable(name).tokens(N, np.random.default_rng(4))
    for probability, expected in shipped_table(name):
        # The share of draws up to the table's value must be its probability (more where the table is flat or rounded).
        below, upto = (tokens < round(expected)).mean(), (tokens <= round(expected)).mean()
        error = 4 * math.sqrt(probability * (1 - probability) / N) + 1e-9
        assert below - error <= probability <= upto + error, (name, probability)


def test_recorded_lengths_are_those_of_the_column_and_come_as_often(small_trace: Trace, tmp_path: Path) -> None:
    save(small_trace, tmp_path / "t.parquet")
    for column, recorded in (("prompt", small_trace.prompt_tokens), ("output", small_trace.output_tokens)):
        tokens = Recorded(str(tmp_path / "t.parquet"), column).tokens(N, np.random.default_rng(6))  # type: ignore[arg-type]
        found, counts = np.unique(tokens, return_counts=True)
        expected, times = np.unique(recorded, return_counts=True)
        assert found.tolist() == expected.tolist()
        assert counts / N == pytest.approx(times / len(recorded), rel=0.05)


def test_tables_between_points_are_straight_on_a_logarithmic_scale() -> None:
    table = QuantileTable(points=((0.0, 1_000.0), (1.0, 100_000.0)))
    tokens = table.tokens(N, np.random.default_rng(5))
    assert stats.kstest(np.log10(tokens), "uniform", args=(3.0, 2.0)).pvalue > 0.01


def test_equal_probabilities_make_a_step() -> None:
    table = QuantileTable(points=((0.0, 32.0), (0.25, 32.0), (0.25, 512.0), (1.0, 512.0)))
    tokens = table.tokens(N, np.random.default_rng(6))
    assert set(tokens.tolist()) == {32, 512}
    assert (tokens == 32).mean() == pytest.approx(0.25, abs=0.006)


@pytest.mark.parametrize(
    ("name", "published_mean", "tolerance"),
    [
        ("azure-conv-like.prompt", 1_243.0, 0.04),
        ("azure-conv-like.output", 217.3, 0.03),
        ("sharegpt-like.prompt", 251.0, 0.02),
        ("sharegpt-like.output", 323.7, 0.02),
    ],
)
def test_a_shipped_table_comes_near_the_published_mean(name: str, published_mean: float, tolerance: float) -> None:
    tokens = QuantileTable(name).tokens(N, np.random.default_rng(7))
    assert tokens.mean() == pytest.approx(published_mean, rel=tolerance)


def test_longbench_like_outputs_are_the_tasks_generation_limits() -> None:
    tokens = QuantileTable("longbench-like.output").tokens(N, np.random.default_rng(8))
    shares = {limit: (tokens == limit).mean() for limit in (32, 64, 128, 512)}
    assert sum(shares.values()) == pytest.approx(1.0)
    samples = {32: 1_200, 64: 350, 128: 600, 512: 600}
    for limit, count in samples.items():
        assert shares[limit] == pytest.approx(count / 2_750, abs=0.01)


def test_every_kind_is_listed_under_its_name() -> None:
    assert list(LENGTHS) == ["fixed", "lognormal", "normal", "uniform", "table", "recorded"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(0), r"Fixed: tokens_each=0 \(allowed: integers 1\.\."),
        (lambda: Fixed(True), "Fixed: tokens_each=True"),
        (lambda: Lognormal(0.0, 1.0), r"Lognormal: mean_tokens=0\.0"),
        (lambda: Lognormal(10.0, -1.0), r"Lognormal: sigma=-1\.0"),
        (lambda: Lognormal(10.0, 1e300), r"Lognormal: sigma=1e\+300"),
        (lambda: Lognormal(10.0, 1.0, 0), "Lognormal: max_tokens=0"),
        (lambda: QuantileTable(), "either table or points"),
        (lambda: QuantileTable("x", ((0.0, 1.0), (1.0, 2.0))), "either table or points"),
        (lambda: QuantileTable("nope"), r"table='nope' \(allowed: sharegpt-like.prompt, "),
        (lambda: QuantileTable(points=((0.0, 1.0),)), "pairs of probability and tokens"),
        (lambda: QuantileTable(points=((0.0, 5.0), (1.0, 2.0))), "both ascending"),
        (lambda: QuantileTable(points=((0.1, 1.0), (1.0, 2.0))), "from probability 0 to 1"),
        (lambda: QuantileTable(points=((0.0, 0.5), (1.0, 2.0))), "tokens >= 1"),
        (lambda: QuantileTable(points=((0.0, 1.0), (1.0, float("nan")))), "points="),
        (lambda: QuantileTable(points=()), r"points=\(\)"),
        (lambda: Recorded("", "prompt"), "Recorded: trace=''"),
        (lambda: Recorded("x", "think_s"), r"Recorded: column='think_s' \(allowed: prompt, output\)"),  # type: ignore[arg-type]
    ],
)
def test_a_parameter_out_of_range_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        make()
