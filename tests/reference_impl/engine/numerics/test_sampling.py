"""Draws follow the distribution that was asked for, and depend on seed and position only."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from reference_impl.engine.api import SamplingParams
from reference_impl.engine.sampling import Wanted, sample, uniform

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5, -3.0, 0.5, 0.0])


def draws(count: int, logits: torch.Tensor = LOGITS, **options: Any) -> Counter[int]:
    """Tokens at positions 0 ... count - 1 of one request."""
    params = SamplingParams(max_tokens=1, **{"seed": 11, **options})
    wanted = [Wanted(0, position, params) for position in range(count)]
    return Counter(token.token for token in sample(logits.expand(count, -1), wanted))


def expected(logits: torch.Tensor, kept: list[int], temperature: float = 1.0) -> np.ndarray[Any, Any]:
    chances = (logits.double() / temperature).softmax(-1).numpy()
    mask = np.isin(np.arange(len(chances)), kept)
    found: np.ndarray[Any, Any] = np.where(mask, chances, 0.0)
    found /= found.sum()
    return found


def assert_follows(counts: Counter[int], chances: np.ndarray[Any, Any]) -> None:
    kept = [token for token, chance in enumerate(chances) if chance > 0]
    assert set(counts) <= set(kept)
    total = sum(counts.values())
    observed = [counts[token] for token in kept]
    if len(kept) > 1:
        assert chisquare(observed, chances[kept] * total).pvalue > 1e-4


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_gives_the_softmax_of_scaled_logits(temperature: float) -> None:
    assert_follows(draws(20_000, temperature=temperature), expected(LOGITS, list(range(8)), temperature))


def test_top_k_keeps_the_likeliest_k_in_proportion() -> None:
    assert_follows(draws(20_000, top_k=3), expected(LOGITS, [0, 4, 1]))


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    ordered = LOGITS.softmax(-1).sort(descending=True)
    p = float(ordered.values[:3].sum()) - 1e-3  # two do not reach it, three do
    assert_follows(draws(20_000, top_p=p), expected(LOGITS, ordered.indices[:3].tolist()))


def test_top_p_counts_within_what_top_k_has_left() -> None:
    """Of the two likeliest, the first alone has more than 0.6: 1 / (1 + e^-0.5)."""
    assert draws(500, top_k=2, top_p=0.6) == Counter({0: 500})
    assert set(draws(500, top_k=2, top_p=0.63)) == {0, 4}


def test_a_tiny_top_p_is_greedy() -> None:
    assert draws(200, top_p=1e-9) == Counter({0: 200})


def test_top_k_of_one_is_greedy() -> None:
    assert draws(200, top_k=1) == Counter({0: 200})


def test_a_top_k_beyond_the_vocabulary_keeps_everything() -> None:
    assert draws(3000, top_k=10**6) == draws(3000)


def test_a_top_p_of_one_keeps_everything() -> None:
    assert set(draws(20_000, top_p=1.0, temperature=3.0)) == set(range(8))


@pytest.mark.parametrize("temperature", [0.0, 1e-9, 1e-300])
def test_no_temperature_is_the_exact_maximum(temperature: float) -> None:
    logits = torch.tensor([1.0, 1.0 + 1e-6, 0.5])
    assert draws(50, logits, temperature=temperature) == Counter({1: 50})


def test_large_logits_and_low_temperatures_do_not_overflow() -> None:
    logits = torch.tensor([3e38, -3e38, 2.9e38])
    assert draws(50, logits, temperature=1e-5) == Counter({0: 50})


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.0])
    assert set(draws(1000, logits)) == {1, 3}


def test_half_precision_logits_give_the_same_distribution() -> None:
    assert_follows(draws(20_000, LOGITS.bfloat16()), expected(LOGITS.bfloat16(), list(range(8))))


def test_a_draw_depends_on_seed_and_position_only() -> None:
    """Not on the request's id, its neighbours, or how often it is drawn: a request may move or be recomputed."""
    params = SamplingParams(max_tokens=1, seed=5, top_p=0.9)
    other = SamplingParams(max_tokens=1, seed=6, top_k=2)
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    alone = sample(logits[7:8], [Wanted(1, 33, params)])[0].token
    crowd = [Wanted(100 + row, 33 if row == 7 else row, params if row == 7 else other) for row in range(64)]
    assert sample(logits, crowd)[7].token == alone


def test_greedy_rows_beside_drawn_ones_stay_greedy() -> None:
    greedy, drawn = SamplingParams(max_tokens=1, temperature=0.0), SamplingParams(max_tokens=1, temperature=5.0)
    wanted = [Wanted(row, row, greedy if row % 2 else drawn) for row in range(400)]
    found = sample(LOGITS.expand(400, -1), wanted)
    assert {token.token for token in found[1::2]} == {0}
    assert len({token.token for token in found[::2]}) == 8


def test_a_batch_larger_than_the_working_set_is_drawn_like_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draws(300, top_p=0.8)
    monkeypatch.setattr("reference_impl.engine.sampling._NUMBERS_AT_ONCE", 20)
    assert draws(300, top_p=0.8) == whole


def test_uniform_numbers_are_uniform_over_positions_and_over_seeds() -> None:
    assert kstest([uniform(3, position) for position in range(20_000)], "uniform").pvalue > 1e-4
    assert kstest([uniform(seed, 3) for seed in range(20_000)], "uniform").pvalue > 1e-4


def test_uniform_numbers_of_neighbours_are_independent() -> None:
    numbers = np.array([[uniform(seed, position) for position in range(200)] for seed in range(200)])
    for axis in (0, 1):
        pairs = np.stack([numbers.take(range(199), axis).ravel(), numbers.take(range(1, 200), axis).ravel()])
        assert abs(np.corrcoef(pairs)[0, 1]) < 0.02


@given(st.integers(-(2**70), 2**70), st.integers(0, 2**40))
def test_every_seed_gives_a_number_below_one(seed: int, position: int) -> None:
    assert 0 <= uniform(seed, position) < 1


def test_the_draws_of_a_seed_are_the_same_for_ever() -> None:
    """Recorded: a run that is repeated with a later version gets the same tokens."""
    recorded = [0.1663964394676608, 0.5098789996255109, 0.026132257827475636]
    assert [uniform(0, 0), uniform(0, 1), uniform(42, 1000)] == recorded


@settings(max_examples=60)
@given(
    st.lists(st.floats(-20, 20), min_size=2, max_size=40),
    st.integers(1, 45),
    st.floats(0.01, 1),
    st.floats(0.2, 3),
    st.integers(0, 1000),
)
def test_a_drawn_token_is_always_one_of_those_kept(
    logits: list[float], top_k: int, top_p: float, temperature: float, seed: int
) -> None:
    params = SamplingParams(max_tokens=1, seed=seed, top_k=top_k, top_p=top_p, temperature=temperature)
    token = sample(torch.tensor([logits]), [Wanted(0, 0, params)])[0].token
    chances = (torch.tensor(logits).double() / temperature).softmax(-1)
    likelier = chances[chances > chances[token] * (1 + 1e-6)]
    assert len(likelier) < top_k
    assert float(likelier.sum()) < top_p * float(chances.topk(min(top_k, len(logits))).values.sum()) + 1e-6


def test_logprobs_are_the_models_own_before_temperature_and_truncation() -> None:
    params = SamplingParams(max_tokens=1, temperature=0.5, top_k=1, logprobs=3)
    found = sample(LOGITS[None], [Wanted(4, 0, params)])[0]
    wanted = LOGITS.double().log_softmax(-1)
    assert found.token == 0
    assert found.logprob == pytest.approx(float(wanted[0]))
    assert [token for token, _ in found.top] == [0, 4, 1]
    assert [value for _, value in found.top] == pytest.approx([float(wanted[token]) for token in (0, 4, 1)])


def test_logprobs_of_none_of_the_others_are_none() -> None:
    plain = SamplingParams(max_tokens=1, temperature=0.0)
    own = SamplingParams(max_tokens=1, temperature=0.0, logprobs=0)
    found = sample(LOGITS.expand(2, -1), [Wanted(0, 0, plain), Wanted(1, 0, own)])
    assert (found[0].logprob, found[0].top) == (None, ())
    assert found[1].logprob is not None
    assert found[1].top == ()
