"""The capacity search against attainment curves that are known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from experiments.capacity import Capacity, Sample, find_capacity, seeded_sampler
from experiments.cases.model import Case, Outcome
from experiments.cases.store import CaseStore
from experiments.config import RunConfig, SloConfig
from experiments.config_base import ConfigError


def _search(attainment: Callable[[float], float], lowest: float = 1.0, highest: float = 64.0) -> Capacity:
    def sample(rate: float) -> Sequence[Sample]:
        return [Sample(attainment(rate), rate)]

    return find_capacity(sample, lowest=lowest, highest=highest, tolerance=0.01)


@pytest.mark.parametrize("truth", [1.5, 7.0, 16.0, 50.0])
def test_the_highest_passing_rate_is_found_within_the_tolerance(truth: float) -> None:
    found = _search(lambda rate: 1.0 if rate <= truth else 0.5)
    assert found.status == "found"
    assert found.capacity_rps is not None
    assert truth * 0.99 <= found.capacity_rps <= truth
    low, high = found.bracket
    assert low is not None
    assert high is not None
    assert low <= truth < high <= low * 1.01
    assert found.monotone
    assert not found.caveats


def test_few_probes_are_enough() -> None:
    assert len(_search(lambda rate: 1.0 if rate <= 50 else 0.5).probes) <= 16


def test_attainment_exactly_at_the_target_passes() -> None:
    assert _search(lambda rate: 0.9 if rate <= 8 else 0.1).capacity_rps == pytest.approx(8, rel=0.01)


def test_a_lowest_rate_that_fails_is_said() -> None:
    found = _search(lambda rate: 0.3)
    assert (found.status, found.capacity_rps, found.bracket) == ("below_lowest", None, (None, 1.0))
    assert "at the lowest rate, 1: start lower" in found.caveats[0]
    assert len(found.probes) == 1


def test_a_highest_rate_that_passes_is_said() -> None:
    found = _search(lambda rate: 0.97)
    assert (found.status, found.capacity_rps, found.bracket) == ("above_highest", 64.0, (64.0, None))
    assert "the capacity is at least that" in found.caveats[0]


def test_a_single_rate_can_be_asked() -> None:
    assert _search(lambda rate: 1.0, 5.0, 5.0).capacity_rps == 5.0


def test_attainment_that_rises_with_the_rate_is_reported_and_the_safe_side_taken() -> None:
    found = _search(lambda rate: 1.0 if rate <= 10 or 12 < rate <= 13 else 0.5)
    assert found.capacity_rps == pytest.approx(10, rel=0.01)
    assert not found.monotone
    assert "does not fall with the rate everywhere" in found.caveats[0]


def test_a_rise_within_noise_is_not_reported() -> None:
    assert _search(lambda rate: 0.95 + 0.0001 * rate if rate <= 10 else 0.5).monotone


def test_a_rate_that_attains_only_because_its_run_is_short_counts_as_failed() -> None:
    found = find_capacity(lambda rate: [Sample(0.99, rate, load_growing=rate > 10)], lowest=1, highest=64)
    assert found.status == "found"
    assert found.capacity_rps == pytest.approx(10, rel=0.02)
    assert [probe.passed for probe in found.probes] == [not probe.load_growing for probe in found.probes]
    (caveat,) = found.caveats
    assert "the load was still growing at the last arrival" in caveat
    assert "raise the number of requests" in caveat


def test_a_lowest_rate_at_which_the_load_grows_asks_for_longer_runs() -> None:
    found = find_capacity(lambda rate: [Sample(0.99, rate, load_growing=True)], lowest=1, highest=64)
    assert found.status == "below_lowest"
    assert not [caveat for caveat in found.caveats if "start lower" in caveat]
    assert "raise the number of requests" in found.caveats[0]


@pytest.mark.parametrize(("growing", "passes"), [((True, False, False), True), ((True, True, False), False)])
def test_one_seed_of_three_may_grow_by_chance(growing: tuple[bool, ...], passes: bool) -> None:
    found = find_capacity(lambda rate: [Sample(0.99, rate, grows) for grows in growing], lowest=1, highest=1)
    assert found.probes[0].passed == passes


def test_the_capacity_is_the_offered_rate_not_the_setting() -> None:
    found = find_capacity(lambda factor: [Sample(float(factor <= 4), 2.5 * factor)], lowest=1, highest=16)
    assert found.capacity_rps == 10.0


def test_seeds_are_averaged() -> None:
    found = find_capacity(lambda rate: [Sample(1.0, rate), Sample(0.7, rate)], lowest=1, highest=2)
    assert found.probes[0].attainment == pytest.approx(0.85)
    assert found.probes[0].by_seed == (1.0, 0.7)
    assert found.status == "below_lowest"


@pytest.mark.parametrize(("lowest", "highest"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_a_wrong_range_is_refused(lowest: float, highest: float) -> None:
    with pytest.raises(ConfigError, match="allowed: 0 < lowest <= highest"):
        _search(lambda rate: 1.0, lowest, highest)


def test_the_sampler_runs_each_seed_at_the_rate_and_keeps_the_outcomes(tmp_path: Path) -> None:
    ran: list[Case] = []

    def runner(case: Case) -> Outcome:
        ran.append(case)
        return Outcome({"attainment": 0.9 + 0.01 * case.seed, "offered_rps": 7.5, "load_growing": float(case.seed)})

    store = CaseStore(tmp_path)
    sample = seeded_sampler(RunConfig(slo=SloConfig(ttft_s=1.0)), runner, seeds=(0, 1), store=store)
    assert sample(8.0) == [Sample(0.9, 7.5), Sample(0.91, 7.5, load_growing=True)]
    assert [case.config.workload.rate_rps for case in ran] == [8.0, 8.0]
    assert [case.config.seed for case in ran] == [0, 1]
    sample(8.0)
    assert len(ran) == 2


def test_capacity_without_an_slo_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs an SLO"):
        seeded_sampler(RunConfig(), lambda case: Outcome({}))
