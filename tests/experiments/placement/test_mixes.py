"""From goodputs of phases to mixes, on numbers that one can check by hand."""

from __future__ import annotations

from experiments.placement.mixes import Mix, best_degree, ranked, replicated

PREFILL = {1: 1.0, 2: 4.0, 4: 9.0}
DECODE = {1: 4.0, 2: 6.0, 4: 0.0}


def test_the_best_degree_has_the_highest_goodput_per_device() -> None:
    assert best_degree(PREFILL) == 4
    assert best_degree(DECODE) == 1
    assert best_degree({1: 1.0, 2: 2.0}) == 1, "equal per device: the smaller"
    assert best_degree({1: 0.0}) is None


def test_mixes_are_ranked_by_what_their_slower_phase_carries_per_device() -> None:
    found = ranked(PREFILL, DECODE, 4)
    assert found[0].mix == Mix(1, 2, 1, 1)
    assert (found[0].rps, found[0].rps_per_device, found[0].mix.devices) == (4.0, 4 / 3, 3)
    assert all(each.mix.devices <= 4 and each.rps > 0 for each in found)
    assert not [each for each in found if each.mix.decode_tp == 4], "a phase that carries nothing is in no mix"


def test_more_devices_change_the_optimum() -> None:
    assert ranked({2: 4.0, 4: 12.0}, DECODE, 6)[0].mix == Mix(1, 2, 1, 1)
    assert ranked({2: 4.0, 4: 12.0}, DECODE, 7)[0].mix == Mix(1, 4, 3, 1), "12 requests/s of 7 devices"
    assert ranked({1: 1.0}, {1: 1.0}, 4)[0].mix == Mix(1, 1, 1, 1), "of equal ones the smaller"


def test_a_rate_is_carried_by_as_many_of_the_best_as_it_takes() -> None:
    assert replicated(PREFILL, DECODE, 17.0) == Mix(2, 4, 5, 1)
    assert replicated(PREFILL, DECODE, 16.0) == Mix(2, 4, 4, 1)
    assert replicated(PREFILL, {1: 0.0}, 1.0) is None


def test_without_a_mix_that_fits_there_is_none() -> None:
    assert ranked(PREFILL, DECODE, 1) == []
