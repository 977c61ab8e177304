"""The fitted cost model: its arithmetic, its file, and whether the fit finds what made the measurements."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import nnls as reference_nnls

from reference_impl.latency.api import Work
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.measured import Coefficients, Measured, along
from reference_impl.latency.measured_fit import Sample, as_text, fit
from reference_impl.latency.nnls import nnls
from reference_impl.latency.profile import profile

TRUTH = Coefficients(
    iteration_s=0.012,
    knots=(0, 4, 16, 64),
    token_s=(3e-3, 1.5e-3, 7e-4, 5e-4),
    sequence_s=2e-4,
    chunk_s=1e-3,
    pair_s=1.2e-7,
    chunk_context_s=1e-6,
    decode_context_s=9e-6,
)


def shapes() -> list[Work]:
    """Prefills, decodes and mixtures, as a profile measures them."""
    chunks: list[tuple[tuple[int, int], ...]] = [
        ((tokens, before),) for tokens in (8, 16, 32, 64, 128, 256, 512) for before in (0, 128, 512)
    ]
    chunks += [((64, 0), (32, 256)), ((16, 0), (16, 0), (16, 64)), ((128, 0), (128, 0))]
    decodes = [(count, context) for count in (1, 2, 4, 8, 16, 32) for context in (16, 64, 256, 1024)]
    found = [Work(chunk, 0, 0) for chunk in chunks]
    found += [Work((), count, count * context, context, context) for count, context in decodes]
    for chunk, (count, context) in itertools.product(chunks[::4], decodes[::5]):
        found.append(Work(chunk, count, count * context, context // 2, 2 * context))
    return found


def samples(truth: Coefficients, noise: float = 0.0) -> list[Sample]:
    rng = np.random.default_rng(1)
    cost = Measured(truth, "tiny")
    return [
        Sample(work, cost.iteration_s(work) * (1 + noise * rng.standard_normal()), group)
        for group, work in enumerate(shapes())
    ]


def test_an_iteration_costs_the_sum_of_its_parts() -> None:
    cost = Measured(replace(TRUTH, gap_s=0.002, gap_sequence_s=1e-5, padded_context_s=1e-6), "tiny")
    work = Work(((10, 30), (5, 0)), 3, 300, 50, 200)
    dense = 0.012 + 4 * 3e-3 + 12 * 1.5e-3 + 2 * 7e-4
    attention = 1.2e-7 * (10 * 35 + 5 * 2.5) + 1e-6 * 45 + 9e-6 * 300 + 1e-6 * 3 * 200
    rest = 5 * 2e-4 + 2 * 1e-3 + 0.002 + 5 * 1e-5
    assert cost.iteration_s(work) == pytest.approx(dense + attention + rest, rel=1e-12)
    assert not Measured(TRUTH, "tiny").needs_spread
    assert cost.needs_spread


@pytest.mark.parametrize(("tokens", "parts"), [(0, [0, 0, 0]), (3, [3, 0, 0]), (8, [8, 0, 0]), (9, [8, 1, 0])])
def test_tokens_are_split_at_the_knots(tokens: int, parts: list[int]) -> None:
    assert along((0, 8, 32), tokens) == parts
    assert along((0, 8, 32), tokens + 100) == [8, 24, tokens + 100 - 32]


@pytest.mark.parametrize("padded_s", [0.0, 4e-6])
def test_the_fit_finds_what_made_exact_measurements(padded_s: float) -> None:
    truth = replace(TRUTH, padded_context_s=padded_s)
    found = fit(samples(truth))
    assert max(error.p90 for error in found.errors.values()) < 1e-6
    assert (found.coefficients.padded_context_s > 0) == (padded_s > 0)
    cost, meant = Measured(found.coefficients, "tiny"), Measured(truth, "tiny")
    unseen = Work(((100, 300), (20, 0)), 11, 5000, 100, 900)
    assert cost.iteration_s(unseen) == pytest.approx(meant.iteration_s(unseen), rel=1e-5)


def test_noise_is_told_as_error_on_shapes_that_were_not_fitted() -> None:
    found = fit(samples(TRUTH, noise=0.05))
    assert set(found.errors) == {"prefill", "decode", "mixed"}
    for error in found.errors.values():
        assert 0.01 < error.median < 0.08
        assert error.p90 < 0.2
        assert abs(error.bias) < 0.05
    said = as_text(found.errors)
    assert "decode " in said
    assert "P90" in said


def test_no_coefficient_turns_negative_where_contexts_cost_nothing() -> None:
    truth = Coefficients(0.01, (0,), (1e-4,))
    found = fit(samples(truth, noise=0.1)).coefficients
    costs = [value for name, value in asdict(found).items() if name.endswith("_s") and not isinstance(value, tuple)]
    assert min([*costs, *found.token_s]) >= 0


def test_a_handful_of_iterations_is_no_profile() -> None:
    with pytest.raises(ProfileError, match="7 measured iterations; allowed: 8 or more"):
        fit(samples(TRUTH)[:7])


def test_nnls_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows, columns = int(rng.integers(5, 40)), int(rng.integers(1, 12))
        matrix = rng.standard_normal((rows, columns)) * 10.0 ** rng.integers(-6, 3, columns)
        target = matrix @ rng.uniform(-1, 1, columns) + rng.standard_normal(rows)
        _, residual = reference_nnls(matrix, target)
        found = nnls(matrix, target)
        assert (found >= 0).all()
        assert np.linalg.norm(matrix @ found - target) == pytest.approx(residual, rel=1e-6)


def written(path: Path, **changes: Any) -> Path:
    content = {
        "format": "semiflow-profile",
        "version": 1,
        "model": "tiny",
        "dtype": "float32",
        "provenance": "measured",
        "fit": asdict(TRUTH),
    }
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_the_file_gives_the_model_back(tmp_path: Path) -> None:
    cost = profile(written(tmp_path / "here.json"))
    assert isinstance(cost, Measured)
    assert cost.coefficients == TRUTH
    assert (cost.name, cost.bytes_per_value) == ("measured(here, tiny)", 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "no profile of format semiflow-profile"),
        ({"version": 2}, "version 1"),
        ({"dtype": "int8"}, "dtype is 'int8'; allowed: float32"),
        ({"fit": {**asdict(TRUTH), "pair_s": -1.0}}, "allowed: finite, 0 or more"),
        ({"fit": {**asdict(TRUTH), "knots": [0, 8]}}, "token_s has 4 entries for 2 knots"),
        ({"fit": {**asdict(TRUTH), "knots": [1, 8, 9, 10]}}, "ascending from 0"),
        ({"fit": {**asdict(TRUTH), "more_s": 1.0}}, "unknown"),
        ({"fit": {"knots": [0], "token_s": [0.0], "iteration_s": 0.0}}, "would take no time"),
        ({"fit": 3}, "wrong type"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        profile(written(tmp_path / "here.json", **changes))
