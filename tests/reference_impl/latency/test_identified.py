"""Fits of linear costs: a known model is found, what rows leave open is refused, groups are kept aside whole."""

from __future__ import annotations

import numpy as np
import pytest

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.identified import Floats, error_of, held_out, solve

ONES = np.ones(40)
TOKENS = np.arange(1.0, 41.0)
PAIRS = TOKENS**2


def noise(size: float) -> Floats:
    return 1 + size * np.random.default_rng(3).uniform(-1, 1, 40)


def test_a_known_model_is_found() -> None:
    seconds = 5e-6 * ONES + 2e-7 * TOKENS + 1e-9 * PAIRS
    found = solve("made up", {"launch": ONES, "token": TOKENS, "pair": PAIRS}, seconds)
    assert found == pytest.approx([5e-6, 2e-7, 1e-9], rel=1e-9, abs=0)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ProfileError, match=r"made up: 3 rows for 2 coefficients \(launch, token\); allowed: 4 or more"):
        solve("made up", {"launch": ONES[:3], "token": TOKENS[:3]}, ONES[:3])


@pytest.mark.parametrize("value", [0.0, 1.0, 7.0])
def test_a_term_that_never_varies_is_refused(value: float) -> None:
    with pytest.raises(ProfileError, match=rf"made up: token is {value:g} in every row"):
        solve("made up", {"launch": ONES, "token": value * ONES, "pair": PAIRS}, ONES)


def test_terms_that_change_together_are_refused_by_name() -> None:
    terms = {"launch": ONES, "token": TOKENS, "byte": 2 * TOKENS, "pair": PAIRS}
    with pytest.raises(ProfileError, match=r"made up: token and byte always change together"):
        solve("made up", terms, ONES + TOKENS)


def test_groups_are_kept_aside_whole_whatever_the_order_of_the_rows() -> None:
    groups = [number % 8 for number in range(40)]
    aside = held_out("made up", groups, 0)
    chosen = {group for group, kept in zip(groups, aside, strict=True) if kept}
    assert len(chosen) == 2
    assert [group in chosen for group in groups] == aside.tolist()
    assert held_out("made up", groups[::-1], 0).tolist() == aside[::-1].tolist()
    assert any(held_out("made up", groups, seed).tolist() != aside.tolist() for seed in range(1, 5))


def test_too_few_groups_to_keep_one_aside_are_refused() -> None:
    with pytest.raises(ProfileError, match=r"made up: rows of 3 groups .*; allowed: 4 or more"):
        held_out("made up", [1, 2, 3, 3], 0)


def test_the_error_is_none_for_the_model_and_large_for_noise() -> None:
    terms = {"launch": ONES, "token": TOKENS}
    aside = held_out("made up", TOKENS.tolist(), 1)

    def error(seconds: Floats) -> float:
        found = solve("made up", {name: column[~aside] for name, column in terms.items()}, seconds[~aside])
        predicted = (found[0] * ONES + found[1] * TOKENS)[aside]
        return error_of(predicted, seconds[aside], int(aside.sum())).median

    assert error(1e-3 * ONES + 1e-4 * TOKENS) < 1e-9
    assert error((1e-3 * ONES + 1e-4 * TOKENS) * noise(0.5)) > 0.1
