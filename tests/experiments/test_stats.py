"""Intervals over seeds: against scipy, against simulation; and the verdict's rule."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as reference

from experiments.stats import Interval, interval, judge, paired_d, t_quantile

Draw = Callable[[np.random.Generator, int], np.ndarray]


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99, 0.9999])
@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 9, 29, 100])
def test_t_quantiles_agree_with_scipy(confidence: float, degrees: int) -> None:
    assert t_quantile(confidence, degrees) == pytest.approx(reference.t.ppf((1 + confidence) / 2, degrees), rel=1e-9)


def test_the_standardised_effect_is_the_t_statistic_over_the_root_of_the_seeds() -> None:
    values = [0.1, 0.3, 0.2, 0.6]
    assert paired_d(values) == pytest.approx(reference.ttest_1samp(values, 0.0).statistic / 2)
    assert paired_d([0.1]) is None
    assert paired_d([0.25, 0.25]) is None


def _normal(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(1.0, 1.0, size)


def _skewed(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.gamma(4.0, 0.25, size)  # mean 1, skewness 1


@pytest.mark.parametrize(("draw", "seeds", "floor"), [(_normal, 3, 0.94), (_normal, 5, 0.94), (_skewed, 5, 0.91)])
def test_t_intervals_of_few_seeds_cover_the_truth(draw: Draw, seeds: int, floor: float) -> None:
    assert floor <= _coverage(draw, seeds, trials=4000) <= 0.965


@pytest.mark.parametrize(("draw", "floor"), [(_normal, 0.93), (_skewed, 0.91)])
def test_bootstrap_intervals_cover_the_truth(draw: Draw, floor: float) -> None:
    assert floor <= _coverage(draw, seeds=12, trials=400) <= 0.985


def _coverage(draw: Draw, seeds: int, trials: int) -> float:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(trials):
        found = interval(draw(rng, seeds).tolist())
        assert found is not None
        hits += found.low <= 1.0 <= found.high
    return hits / trials


def test_equal_runs_are_judged_equally_often_as_different_as_promised() -> None:
    rng = np.random.default_rng(3)
    wrong = sum(judge(interval(rng.normal(0, 1, 5).tolist()), 0.0, True) != "inconclusive" for _ in range(4000))
    assert 0.035 <= wrong / 4000 <= 0.065


def test_the_method_changes_at_ten_seeds() -> None:
    methods = [found.method for size in (2, 9, 10, 30) if (found := interval(list(range(size))))]
    assert methods == ["t", "t", "bootstrap", "bootstrap"]


def test_the_bootstrap_is_deterministic() -> None:
    values = np.random.default_rng(0).normal(size=15).tolist()
    assert interval(values, seed=4) == interval(values, seed=4)
    assert interval(values, seed=4) != interval(values, seed=5)


def test_one_seed_gives_no_interval() -> None:
    assert interval([1.0]) is None
    assert judge(None, 0.0, True) == "inconclusive"


def test_equal_differences_give_a_point() -> None:
    found = interval([0.25, 0.25, 0.25])
    assert found is not None
    assert (found.low, found.high) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("low", "mean", "high", "verdict"),
    [
        (0.02, 0.03, 0.04, "better"),
        (0.001, 0.02, 0.04, "better"),
        (0.001, 0.005, 0.02, "inconclusive"),  # not zero, but too small to matter
        (0.001, 0.005, 0.009, "no difference"),  # surely too small to matter
        (-0.005, 0.0, 0.005, "no difference"),
        (-0.01, 0.02, 0.05, "inconclusive"),
        (-0.04, -0.03, -0.02, "worse"),
        (0.0, 0.0, 0.0, "no difference"),
    ],
)
def test_the_verdict_needs_an_interval_without_zero_and_a_practical_effect(
    low: float, mean: float, high: float, verdict: str
) -> None:
    found = Interval(mean, low, high, 5, 0.95, "t")
    assert judge(found, 0.01, higher_is_better=True) == verdict
    opposite = {"better": "worse", "worse": "better"}
    assert judge(found, 0.01, higher_is_better=False) == opposite.get(verdict, verdict)


def test_without_a_threshold_equality_is_no_difference() -> None:
    assert judge(interval([0.0, 0.0]), 0.0, True) == "no difference"


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_outside_of_zero_to_one_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="allowed: between 0 and 1"):
        interval([1.0, 2.0], confidence)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        interval([1.0, float("nan")])


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="min_effect is -1"):
        judge(interval([1.0, 2.0]), -1, True)
