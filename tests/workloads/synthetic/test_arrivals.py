"""Arrival processes against theory, with fixed seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from workloads.errors import TraceError
from workloads.storage import save
from workloads.synthetic import ARRIVALS, Arrivals, Constant, Gamma, OnOff, Poisson, Replayed
from workloads.trace import Trace

N = 40_000


def gaps(arrivals: Arrivals, requests: int = N, seed: int = 1) -> NDArray[np.float64]:
    return np.diff(arrivals.times_s(requests, np.random.default_rng(seed)), prepend=0.0)


def counts_per_bin(times: NDArray[np.float64], bin_s: float) -> NDArray[np.int64]:
    edges = np.arange(0.0, times[-1], bin_s)
    return np.histogram(times, edges)[0]


def test_poisson_gaps_are_exponential_and_not_clipped() -> None:
    drawn = gaps(Poisson(5.0))
    assert stats.kstest(drawn, "expon", args=(0, 1 / 5.0)).pvalue > 0.01
    assert drawn.max() > 8 / 5.0
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 3 / np.sqrt(N)


def test_poisson_counts_have_a_dispersion_of_one() -> None:
    counts = counts_per_bin(Poisson(5.0).times_s(N, np.random.default_rng(2)), 10.0)
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / len(counts)))


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_gamma_gaps_have_the_stated_mean_variation_and_shape(cv: float) -> None:
    drawn = gaps(Gamma(rate_rps=4.0, cv=cv))
    assert drawn.mean() == pytest.approx(1 / 4.0, rel=4 * cv / np.sqrt(N))
    assert drawn.std() / drawn.mean() == pytest.approx(cv, rel=0.03)
    law = stats.gamma(cv**-2, scale=cv**2 / 4.0)
    # Sums of gaps resolve about 1e-12 s, and a bursty process has many gaps below: compare what lies above 1e-6 s.
    tiny = law.cdf(1e-6)
    assert (drawn <= 1e-6).mean() == pytest.approx(tiny, abs=4 * np.sqrt(tiny / N) + 1e-9)
    above = drawn[drawn > 1e-6]
    assert stats.kstest(above, lambda gap: (law.cdf(gap) - tiny) / (1 - tiny)).pvalue > 0.01


def test_constant_gaps_do_not_drift() -> None:
    times = Constant(3.0).times_s(N, np.random.default_rng(0))
    assert times[0] == 0.0
    assert times[-1] == (N - 1) / 3.0


def test_on_off_has_the_stated_rate_duty_and_burst_rate() -> None:
    process = OnOff(rate_rps=20.0, on_fraction=0.25, cycle_s=40.0)
    times = process.times_s(400_000, np.random.default_rng(3))
    cycles = times[-1] / 40.0
    assert len(times) / times[-1] == pytest.approx(20.0, rel=4 / np.sqrt(cycles))
    # A gap of 1 s inside a burst of 80/s has probability e^-80: longer gaps are off periods (less the short ones).
    drawn = np.diff(times)
    off = drawn[drawn > 1.0]
    assert off.sum() / times[-1] == pytest.approx(0.75, abs=0.03)
    assert stats.kstest(off - 1.0, "expon", args=(0, 30.0)).pvalue > 0.01
    inside = drawn[drawn < 0.5]
    assert inside.mean() == pytest.approx(1 / 80.0, rel=0.01)


def test_on_off_starts_in_its_stationary_state() -> None:
    process = OnOff(rate_rps=100.0, on_fraction=0.25, cycle_s=40.0)
    rng = np.random.default_rng(4)
    first = np.array([process.times_s(1, rng)[0] for _ in range(10_000)])
    assert (first < 0.5).mean() == pytest.approx(0.25 + 0.75 * (1 - np.exp(-0.5 / 30)), abs=0.02)
    waits = first[first > 1.0] - 1.0
    assert stats.kstest(waits, "expon", args=(0, 30.0)).pvalue > 0.01


def test_always_on_is_poisson() -> None:
    assert stats.kstest(gaps(OnOff(5.0, 1.0, 10.0)), "expon", args=(0, 1 / 5.0)).pvalue > 0.01


def test_replayed_times_are_those_of_the_trace(small_trace: Trace, tmp_path: Path) -> None:
    save(small_trace, tmp_path / "t.parquet")
    replayed = Replayed(str(tmp_path / "t.parquet"), rate_factor=2.0)
    assert replayed.times_s(4, np.random.default_rng(0)).tolist() == [0.0, 0.5, 0.5, 1.25]
    with pytest.raises(TraceError, match=r"7 requests \(allowed: at most 6, as many as small has"):
        replayed.times_s(7, np.random.default_rng(0))


@pytest.mark.parametrize("arrivals", [Poisson(2.0), Gamma(2.0, 3.0), Constant(2.0), OnOff(2.0, 0.3, 5.0)])
def test_times_ascend_from_zero_and_depend_on_the_seed_only(arrivals: Arrivals) -> None:
    times = arrivals.times_s(500, np.random.default_rng(9))
    assert len(times) == 500
    assert times[0] >= 0.0
    assert (np.diff(times) >= 0.0).all()
    np.testing.assert_array_equal(times, arrivals.times_s(500, np.random.default_rng(9)))


def test_every_kind_is_listed_under_its_name() -> None:
    assert list(ARRIVALS) == ["poisson", "gamma", "constant", "on_off", "diurnal", "piecewise", "replayed"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(0.0), r"Poisson: rate_rps=0\.0 \(allowed: numbers > 0, at most 1,000,000\)"),
        (lambda: Poisson(1e7), "rate_rps=10000000"),
        (lambda: Poisson(float("inf")), "rate_rps=inf"),
        (lambda: Poisson(10**400), "rate_rps=1000"),
        (lambda: Poisson(True), "rate_rps=True"),
        (lambda: Gamma(1.0, 0.0), r"Gamma: cv=0\.0"),
        (lambda: Gamma(1.0, 1e-200), r"Gamma: cv=1e-200 \(allowed: numbers 0\.001\.\.1000"),
        (lambda: OnOff(1.0, 1.5, 10.0), r"OnOff: on_fraction=1\.5"),
        (lambda: OnOff(1.0, 0.5, -1.0), r"OnOff: cycle_s=-1\.0"),
        (lambda: OnOff(1.0, 0.5, 1e-300).times_s(10, np.random.default_rng(0)), "OnOff: cycle_s=1e-300"),
        (lambda: Replayed("", 1.0), "Replayed: trace=''"),
        (lambda: Replayed("x", 0.0), r"Replayed: rate_factor=0\.0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        make()
