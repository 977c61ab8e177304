"""Linear models: DistServe's fits and constant service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reference_impl.latency.api import LatencyModel, Work
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.linear import DecodeFit, Linear, constant, distserve

FITS = {
    "facebook/opt-13b": {
        "1": {
            "decoding_large_small_bs_threshold": 95,
            "prefill": [18.0, 0.1, 7e-6],
            "decoding_smallbs": [20.0, 6e-4, 0.04],
            "decoding_largebs": [7.0, 5e-4, 0.16],
        }
    }
}


@pytest.fixture
def fits(tmp_path: Path) -> Path:
    path = tmp_path / "fits.json"
    path.write_text(json.dumps(FITS), encoding="utf-8")
    return path


def test_distserve_prefill_is_its_quadratic(fits: Path) -> None:
    cost: LatencyModel = distserve(fits, "facebook/opt-13b")
    took = cost.iteration_s(Work(((500, 0), (300, 0)), 0, 0))
    assert took == pytest.approx(1e-3 * (18.0 + 0.1 * 800 + 7e-6 * (500**2 + 300**2)))


def test_chunks_of_a_prompt_add_up_to_its_square(fits: Path) -> None:
    cost = distserve(fits, "facebook/opt-13b")
    chunks = [cost.iteration_s(Work(((250, 250 * index),), 0, 0)) for index in range(2)]
    assert sum(chunks) == pytest.approx(cost.iteration_s(Work(((500, 0),), 0, 0)) + 18e-3)


@pytest.mark.parametrize(
    ("decodes", "milliseconds"), [(94, 20 + 6e-4 * 9400 + 0.04 * 94), (95, 7 + 5e-4 * 9400 + 0.16 * 95)]
)
def test_distserve_decode_changes_regime_at_the_threshold(fits: Path, decodes: int, milliseconds: float) -> None:
    cost = distserve(fits, "facebook/opt-13b")
    assert cost.iteration_s(Work((), decodes, 9400)) == pytest.approx(1e-3 * milliseconds)


def test_a_mixed_iteration_pays_the_larger_base_once() -> None:
    cost = Linear(0.01, 1e-4, 0.0, (DecodeFit(0.02, 1e-6, 1e-5),))
    assert cost.iteration_s(Work(((100, 0),), 10, 1000)) == pytest.approx(0.02 + 0.01 + 1e-3 + 1e-4)


def test_constant_service_is_constant() -> None:
    cost = constant(prefill_s=2.0, decode_s=0.5)
    assert cost.iteration_s(Work(((7, 3),), 0, 0)) == 2.0
    assert cost.iteration_s(Work((), 9, 10_000)) == 0.5
    assert cost.piece(Work((), 9, 10_000)).growth_s == 0.0


@pytest.mark.parametrize(
    ("model", "tp", "message"),
    [("opt-1b", 1, "has no model 'opt-1b'; it has facebook/opt-13b"), ("facebook/opt-13b", 2, "has no degree 2")],
)
def test_a_missing_fit_shows_the_choices(fits: Path, model: str, tp: int, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        distserve(fits, model, tp)


def test_an_incomplete_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fits.json"
    path.write_text(json.dumps({"a/m": {"1": {"prefill": [1, 2, 3]}}}), encoding="utf-8")
    with pytest.raises(ProfileError, match="decoding_large_small_bs_threshold"):
        distserve(path, "a/m")
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(ProfileError, match="cannot read"):
        distserve(path, "m")


def test_a_model_that_takes_no_time_is_refused() -> None:
    with pytest.raises(ProfileError, match="a prefill must take time"):
        Linear(0.0, 0.0, 0.0, (DecodeFit(1.0),))
    with pytest.raises(ProfileError, match="a decode iteration would take no time"):
        Linear(1.0, 0.0, 0.0, (DecodeFit(0.0, 1.0),))
    with pytest.raises(ProfileError, match="below=None"):
        Linear(1.0, 0.0, 0.0, (DecodeFit(1.0, below=9),))
