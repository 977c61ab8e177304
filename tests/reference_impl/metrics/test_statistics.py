"""Weighted percentiles against numpy on the expanded sample."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reference_impl.metrics.statistics import Weighted

PAIRS = st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 5)), min_size=1, max_size=30)


@given(PAIRS)
def test_weighted_percentiles_equal_numpy_on_the_expanded_sample(pairs: list[tuple[float, int]]) -> None:
    values, weights = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], np.int64)
    sample = Weighted.of(values, weights)
    expanded = np.repeat(values, weights)
    percents = [0, 1, 50, 90, 95, 99, 99.9, 100]
    if not len(expanded):
        assert np.isnan(sample.percentiles(percents)).all()
        return
    assert sample.size == len(expanded)
    np.testing.assert_allclose(sample.percentiles(percents), np.percentile(expanded, percents), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(sample.mean(), expanded.mean(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sample.std(), expanded.std(), rtol=1e-6, atol=1e-6)
    assert sample.expand().tolist() == sorted(expanded.tolist())


def test_percentiles_interpolate_linearly() -> None:
    assert Weighted.of(np.array([0.0, 10.0])).percentiles([90])[0] == 9.0
