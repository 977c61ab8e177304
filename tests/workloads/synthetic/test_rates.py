"""Rates that change with time, against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from workloads.errors import TraceError
from workloads.synthetic import Diurnal, Piecewise
from workloads.synthetic.arrivals import ARRIVALS
from workloads.synthetic.build import build_kind

N = 40_000


def test_a_diurnal_rate_has_the_stated_mean_and_shape() -> None:
    process = Diurnal(rate_rps=5.0, swing=0.8, period_s=200.0, peak_s=50.0)
    times = process.times_s(N, np.random.default_rng(1))
    assert N / times[-1] == pytest.approx(5.0, rel=0.02)
    counts, edges = np.histogram(times % 200.0, bins=20, range=(0.0, 200.0))
    middle = (edges[1:] + edges[:-1]) / 2
    expected = 1.0 + 0.8 * np.cos(2 * math.pi * (middle - 50.0) / 200.0)
    expected *= N / expected.sum()
    assert stats.chisquare(counts, expected).pvalue > 0.001


def test_a_diurnal_rate_without_swing_is_poisson() -> None:
    gaps = np.diff(Diurnal(rate_rps=5.0, swing=0.0).times_s(N, np.random.default_rng(2)))
    assert stats.kstest(gaps, "expon", args=(0, 0.2)).pvalue > 0.01


def test_a_full_swing_falls_silent_and_stays_ascending() -> None:
    times = Diurnal(rate_rps=50.0, swing=1.0, period_s=10.0, peak_s=5.0).times_s(N, np.random.default_rng(3))
    assert (np.diff(times) >= 0.0).all()
    assert times[0] >= 0.0


def test_a_piecewise_rate_has_the_stated_rate_in_each_step() -> None:
    times = Piecewise("0:4/1000:0/1500:12").times_s(N, np.random.default_rng(4))
    assert (times < 1000.0).sum() == pytest.approx(4_000, abs=4 * math.sqrt(4_000))
    assert not ((times >= 1000.0) & (times < 1500.0)).any()
    later = times[times >= 1500.0]
    assert stats.kstest(np.diff(later), "expon", args=(0, 1 / 12)).pvalue > 0.01


@pytest.mark.parametrize("steps", ["0:2/5:10", "0:0/5:10", "0:10/5:0"])
def test_a_piecewise_rate_repeats(steps: str) -> None:
    times = Piecewise(steps, repeat_s=8.0).times_s(N, np.random.default_rng(5))
    first, second = (float(step.split(":")[1]) for step in steps.split("/"))
    mean = (5.0 * first + 3.0 * second) / 8.0
    assert N / times[-1] == pytest.approx(mean, rel=0.03)
    early = (times % 8.0 < 5.0).mean()
    assert early == pytest.approx(5.0 * first / (8.0 * mean), abs=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("diurnal:rate_rps=4,swing=1.5", "swing=1.5"),
        ("diurnal:rate_rps=4", "missing swing"),
        ("piecewise:steps=4", r"steps=4 \(allowed: START:RATE"),
        ("piecewise:steps=1:4", "START:RATE"),
        ("piecewise:steps=0:4/0:5", "START:RATE"),
        ("piecewise:steps=0:4/5:-1", "START:RATE"),
        ("piecewise:steps=0:0", "START:RATE"),
        ("piecewise:steps=0:nan", "START:RATE"),
        ("piecewise:steps=0:4/5:0", "last_rate=0.0"),
        ("piecewise:steps=0:4/5:1,repeat_s=5", "repeat_s=5"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        build_kind("arrivals", ARRIVALS, text)


def test_texts_describe_them() -> None:
    assert build_kind("arrivals", ARRIVALS, "piecewise:steps=0:4/600:12,repeat_s=900") == Piecewise("0:4/600:12", 900)
    assert build_kind("arrivals", ARRIVALS, "diurnal:rate_rps=4,swing=0.5") == Diurnal(4, 0.5)
