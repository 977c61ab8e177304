"""From goodputs of phases to mixes, on numbers that one can check by hand."""

from __future__ import annotations

from experiments.placement.mixes import Mix, Parallelism, best_parallelism, ranked, replicated


def degrees(goodputs: dict[int, float]) -> dict[Parallelism, float]:
    """Without stages."""
    return {Parallelism(tp): rps for tp, rps in goodputs.items()}


PREFILL = degrees({1: 1.0, 2: 4.0, 4: 9.0})
DECODE = degrees({1: 4.0, 2: 6.0, 4: 0.0})


def test_the_best_degree_has_the_highest_goodput_per_device() -> None:
    assert best_parallelism(PREFILL) == Parallelism(4)
    assert best_parallelism(DECODE) == Parallelism(1)
    assert best_parallelism(degrees({1: 1.0, 2: 2.0})) == Parallelism(1), "equal per device: the smaller"
    assert best_parallelism(degrees({1: 0.0})) is None


def test_mixes_are_ranked_by_what_their_slower_phase_carries_per_device() -> None:
    found = ranked(PREFILL, DECODE, 4)
    assert found[0].mix == Mix(1, Parallelism(2), 1, Parallelism(1))
    assert (found[0].rps, found[0].rps_per_device, found[0].mix.devices) == (4.0, 4 / 3, 3)
    assert all(each.mix.devices <= 4 and each.rps > 0 for each in found)
    assert not [each for each in found if each.mix.decode == Parallelism(4)], (
        "a phase that carries nothing is in no mix"
    )


def test_more_devices_change_the_optimum() -> None:
    assert ranked(degrees({2: 4.0, 4: 12.0}), DECODE, 6)[0].mix == Mix(1, Parallelism(2), 1, Parallelism(1))
    assert ranked(degrees({2: 4.0, 4: 12.0}), DECODE, 7)[0].mix == Mix(1, Parallelism(4), 3, Parallelism(1)), (
        "12 requests/s of 7 devices"
    )
    assert ranked(degrees({1: 1.0}), degrees({1: 1.0}), 4)[0].mix == Mix(1, Parallelism(1), 1, Parallelism(1)), (
        "of equal ones the smaller"
    )


def test_a_rate_is_carried_by_as_many_of_the_best_as_it_takes() -> None:
    assert replicated(PREFILL, DECODE, 17.0) == Mix(2, Parallelism(4), 5, Parallelism(1))
    assert replicated(PREFILL, DECODE, 16.0) == Mix(2, Parallelism(4), 4, Parallelism(1))
    assert replicated(PREFILL, degrees({1: 0.0}), 1.0) is None


def test_stages_count_as_devices_and_lose_against_what_is_equal_without_them() -> None:
    staged, split = Parallelism(1, 2), Parallelism(2, 1)
    assert Mix(2, staged, 1, Parallelism(2, 2)).devices == 8
    assert best_parallelism({staged: 4.0, split: 4.0, Parallelism(1): 1.0}) == split
    found = ranked({staged: 5.0, split: 4.0}, {Parallelism(1): 5.0}, 3)
    assert [str(each.mix) for each in found] == [
        "1 prefill (tp 1 pp 2) + 1 decode (tp 1 pp 1)",
        "1 prefill (tp 2 pp 1) + 1 decode (tp 1 pp 1)",
    ]


def test_without_a_mix_that_fits_there_is_none() -> None:
    assert ranked(PREFILL, DECODE, 1) == []
