"""Errors, pairs that truly differ, and rankings, on numbers made for it."""

from __future__ import annotations

import pytest

from experiments.fidelity.config import BarsConfig
from experiments.fidelity.measures import FIGURES
from experiments.fidelity.verdict import RANKED, Compared, bars, compared, decisions_bar, pairs_of, rankings, separated


def row(
    dispatch: str, live: tuple[float, ...], simulated: float, figure: str = RANKED[0], batch: str = "b"
) -> Compared:
    return Compared("t", dispatch, batch, figure, live, simulated)


def test_an_error_is_relative_to_the_live_mean() -> None:
    found = row("a", (90.0, 110.0), 120.0)
    assert found.error == pytest.approx(0.2)
    assert found.spread == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("first", "second", "effect", "apart"),
    [
        ((100.0, 101.0, 102.0), (120.0, 121.0, 122.0), 0.05, True),
        ((100.0, 101.0, 102.0), (120.0, 121.0, 122.0), 0.25, False),
        ((100.0, 110.0, 120.0), (118.0, 130.0, 140.0), 0.05, False),  # they overlap
        ((100.0, 118.0), (119.0, 121.0), 0.05, False),  # no overlap, but less apart than runs of one policy
        ((100.0,), (120.0,), 0.05, True),
    ],
)
def test_two_policies_truly_differ_beyond_the_noise(
    first: tuple[float, ...], second: tuple[float, ...], effect: float, apart: bool
) -> None:
    a, b = row("a", first, 1.0), row("b", second, 1.0)
    assert separated(a, b, effect) == separated(b, a, effect) == apart


def test_pairs_are_of_one_kind_with_the_common_other_policy() -> None:
    rows = [
        row("a", (100.0,), 105.0),
        row("c", (150.0,), 140.0),
        row("d", (151.0,), 139.0),
        row("a", (300.0,), 100.0, batch="x"),
        row("c", (999.0,), 1.0, batch="x"),  # not in either series
    ]
    common = {"t": ("a", "b")}
    dispatch = pairs_of(rows, "dispatch", ("a", "c", "d"), common, 0.05)
    assert [(pair.first, pair.second, pair.separated, pair.kept) for pair in dispatch] == [
        *(("a", "c", True, True), ("a", "d", True, True), ("c", "d", False, False))
    ]
    batch = pairs_of(rows, "batch", ("b", "x"), common, 0.05)
    assert [(pair.first, pair.second, pair.separated, pair.kept) for pair in batch] == [("b", "x", True, False)]
    ranked = {each.kind: each for each in rankings([*dispatch, *batch])}
    assert (ranked["dispatch"].separated, ranked["dispatch"].kept) == (2, 2)
    assert ranked["dispatch"].kendall_tau == pytest.approx(1 / 3)
    assert (ranked["batch"].kept, ranked["batch"].kendall_tau) == (0, -1.0)


def test_a_pair_that_loses_its_order_misses_the_bar() -> None:
    figures = ("ttft_mean_ms", "tpot_mean_ms", "e2e_mean_ms")
    rows = [row(name, (live,), simulated, figure) for figure in figures for name, live, simulated in _SERIES]
    pairs = pairs_of(rows, "dispatch", ("a", "c", "d"), {"t": ("a", "b")}, 0.05)
    wanted = BarsConfig(dispatch_pairs=2, batch_pairs=0)
    by_demand = {bar.demand: bar for bar in bars(rows, pairs, wanted)}
    order = by_demand["2 or more dispatch pairs truly differ live, all keep their order"]
    assert (order.found, order.reached) == ("3 differ, 2 keep their order", False)
    assert by_demand["mean TTFT within 20% everywhere"].reached
    assert by_demand["mean TPOT within 10% everywhere"].found.startswith("worst -14.3%")


_SERIES = (("a", 100.0, 105.0), ("c", 130.0, 125.0), ("d", 140.0, 120.0))


def test_decisions_that_are_made_otherwise_miss_a_bar() -> None:
    noted = {"decisions": 100.0, "decisions_carried_out": 90.0, "policies_that_differ": 0.0}
    assert decisions_bar([{}, {}]) == []
    (kept,) = decisions_bar([noted, {}, noted])
    assert (kept.found, kept.reached) == ("200 decisions of 2 live runs (180 carried out), 0 policies differ", True)
    (lost,) = decisions_bar([noted, {**noted, "policies_that_differ": 1.0}])
    assert not lost.reached


@pytest.mark.parametrize("lost", [{"decisions": 89.0}, {"decisions": 0.0, "decisions_carried_out": 0.0}])
def test_a_recording_that_is_not_whole_misses_a_bar(lost: dict[str, float]) -> None:
    noted = {"decisions": 100.0, "decisions_carried_out": 90.0, "policies_that_differ": 0.0}
    (bar,) = decisions_bar([noted, {**noted, **lost}])
    assert not bar.reached


def test_every_figure_of_a_setting_is_compared() -> None:
    live = [dict.fromkeys(FIGURES, 2.0), dict.fromkeys(FIGURES, 4.0)]
    found = compared("t", "a", "b", live, dict.fromkeys(FIGURES, 3.0), FIGURES)
    assert [each.figure for each in found] == list(FIGURES)
    assert all(each.error == 0 and each.live == (2.0, 4.0) for each in found)
