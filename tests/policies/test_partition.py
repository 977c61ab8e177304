"""semi-PD's Algorithm 1 and its latency fit, step by step."""

from __future__ import annotations

import pytest

from policies.api import Partition, PartitionView
from policies.partition.latency_fit import Line, fit_line, linear_percentile
from policies.partition.semi_pd import SemiPd
from policies.registry import PolicySpec

# Figure 10 of the paper, digitised: the 11 and 17 measured points.
FREE_SHARE = (0.092, 0.154, 0.216, 0.280, 0.341, 0.402, 0.467, 0.530, 0.591, 0.657, 0.717)
TTFT = (7.24, 4.82, 3.11, 2.29, 1.93, 1.66, 1.51, 1.19, 1.15, 1.0, 0.96)
DECODE_SHARE = tuple(0.2 + 0.05 * i for i in range(17))
TPOT = (3.63, 2.87, 2.38, 2.17, 1.92, 1.72, 1.58, 1.51, 1.39, 1.33, 1.29, 1.23, 1.19, 1.17, 1.12, 1.08, 1.0)


def semi_pd(**parameters: object) -> SemiPd:
    policy = PolicySpec.of("partition", "semi_pd", parameters).build(0)
    assert isinstance(policy, SemiPd)
    return policy


def window(
    shares: tuple[int, int], ttft_s: float | None, tpot_s: float | None, *, load: float = 0.0, target_s: float = 1.0
) -> PartitionView:
    """A window whose requests all had this TTFT and TPOT; ``load``: 100 requests' prefill time on the whole device."""
    prefill_pct, decode_pct = shares
    return PartitionView(
        now_s=0.0,
        instance_id=0,
        partition=Partition(prefill_pct, decode_pct),
        window_s=10.0,
        ttft_s=() if ttft_s is None else (ttft_s,) * 100,
        tpot_s=() if tpot_s is None else (tpot_s,) * 100,
        arrivals=100,
        prefill_busy_s=10.0 * load / (prefill_pct / (prefill_pct + decode_pct)),
        prefilled_requests=100,
        waiting_requests=0,
        running_requests=10,
        ttft_target_s=target_s,
        tpot_target_s=target_s,
    )


def test_the_fit_recovers_the_ttft_coefficients_of_figure_10() -> None:
    line = fit_line([(1 / free, y) for free, y in zip(FREE_SHARE, TTFT, strict=True)], prior=Line(0, 0))
    assert line.slope == pytest.approx(0.6809, rel=0.01)
    assert line.intercept == pytest.approx(0.022, abs=0.03)


def test_the_fit_returns_the_printed_lines_from_points_on_them() -> None:
    for printed in (Line(0.6809, 0.022), Line(0.6284, 0.3818)):
        line = fit_line([(x, printed.at(x)) for x in (1.0, 1.5, 4.0, 10.0)], prior=Line(0, 0))
        assert line == pytest.approx(printed)


def test_the_fit_recovers_the_tpot_coefficients_of_figure_10() -> None:
    line = fit_line([(1 / share, y) for share, y in zip(DECODE_SHARE, TPOT, strict=True)], prior=Line(0, 0))
    assert line.slope == pytest.approx(0.6284, rel=0.01)
    assert line.intercept == pytest.approx(0.3818, rel=0.02)


def test_the_policy_learns_figure_10_from_its_windows() -> None:
    load = 0.283
    policy = semi_pd(step_pct=1, max_step=100)
    for free, ttft_s in zip(FREE_SHARE, TTFT, strict=True):
        pairs = ((x, y) for x in range(1, 101) for y in range(1, 101))
        shares = min(pairs, key=lambda pair: abs(pair[0] / sum(pair) - load - free))
        policy.partition(window(shares, ttft_s, None, load=load, target_s=100.0))
    # The paper's line is at 3.2 where x' = 0.283 + 0.6809 / (3.2 - 0.022) = 0.497: 59 : 60 is the first share past it.
    assert policy.partition(window((40, 60), 5.8, None, load=load, target_s=3.2)) == (59, 60)


def test_one_point_gives_the_line_through_the_origin_and_none_the_prior() -> None:
    assert fit_line([(2.0, 3.0)], prior=Line(9, 9)) == Line(1.5, 0.0)
    assert fit_line([(2.0, 3.0), (2.0, 5.0)], prior=Line(9, 9)) == Line(2.0, 0.0)
    assert fit_line([], prior=Line(9, 9)) == Line(9, 9)


def test_a_fit_that_says_less_share_is_faster_is_replaced() -> None:
    assert fit_line([(1.0, 2.0), (2.0, 1.0)], prior=Line(0, 0)) == Line(0.8, 0.0)


@pytest.mark.parametrize(("percent", "value"), [(0, 1.0), (50, 2.5), (90, 3.7), (100, 4.0)])
def test_percentiles_are_interpolated_linearly(percent: float, value: float) -> None:
    assert linear_percentile([4.0, 1.0, 3.0, 2.0], percent) == pytest.approx(value)
    assert linear_percentile([], percent) is None


def test_nothing_changes_when_both_targets_are_met() -> None:
    assert semi_pd().partition(window((60, 40), 0.9, 0.9)) == (60, 40)
    assert semi_pd().partition(window((60, 40), 1.0, 0.5)) == (60, 40)
    assert semi_pd().partition(window((60, 40), 1.0 + 1e-9, 0.5)) == (60, 40), "equal but for rounding"
    assert semi_pd().partition(window((60, 40), 0.5, 1.0)) == (60, 40)


def test_a_lane_without_target_or_samples_counts_as_meeting_it() -> None:
    assert semi_pd().partition(window((60, 40), None, None)) == (60, 40)
    view = window((60, 40), 9.0, 9.0)._replace(ttft_target_s=None, tpot_target_s=None)
    assert semi_pd().partition(view) == (60, 40)


def test_a_missed_ttft_raises_the_prefill_share_until_the_model_promises_the_target() -> None:
    # One window, no queueing: TTFT = a / x' with a = 1.2 * 0.5, so x' = 0.6 is needed: 70 : 50 is short of it.
    assert semi_pd(max_step=100).partition(window((50, 50), 1.2, 0.5)) == (75, 50)


def test_a_missed_tpot_raises_the_decode_share_symmetrically() -> None:
    assert semi_pd(max_step=100).partition(window((50, 50), 0.5, 1.2)) == (50, 75)


def test_no_more_than_max_step_steps_are_taken_at_once() -> None:
    assert semi_pd(max_step=2, step_pct=3).partition(window((50, 50), 50.0, 0.5)) == (56, 50)


def test_a_share_at_100_grows_by_cutting_the_other() -> None:
    assert semi_pd(max_step=3).partition(window((95, 100), 50.0, 0.5)) == (100, 90)
    assert semi_pd(max_step=1).partition(window((98, 100), 50.0, 0.5)) == (98, 95), "98 + 5 would pass 100"
    assert semi_pd(max_step=3).partition(window((100, 100), 0.5, 50.0)) == (85, 100)


def test_no_share_is_cut_below_the_least() -> None:
    assert semi_pd(max_step=100).partition(window((100, 32), 1e6, 0.5)) == (100, 22)
    assert semi_pd(max_step=100).partition(window((32, 100), 0.5, 1e6)) == (22, 100)
    assert semi_pd(max_step=100, least_pct=2).partition(window((100, 12), 1e6, 0.5)) == (100, 2)
    assert semi_pd(max_step=100, least_pct=3).partition(window((100, 12), 1e6, 0.5)) == (100, 7)


def test_both_targets_missed_changes_nothing_by_the_text_and_grows_prefill_as_printed() -> None:
    assert semi_pd().partition(window((50, 50), 50.0, 50.0)) == (50, 50)
    assert semi_pd(printed_variant=True).partition(window((50, 50), 50.0, 50.0)) == (70, 50)


def test_a_queue_that_grows_without_end_takes_every_step() -> None:
    # The load is 60 % of the device: with x' = 0.5 nothing is stable, and up to 75 : 50 (0.6) no estimate is finite.
    policy = semi_pd(max_step=8)
    grown = policy.partition(window((50, 50), 1.1, 0.5, load=0.6, target_s=1.0))
    assert grown.prefill_pct > 75


def test_without_a_stable_window_the_model_is_an_mm1_queue() -> None:
    # Prefill takes 0.06 s on the whole device: P90 = ln(10) * 0.06 / (x' - 0.6) <= 2 needs x' = 0.669, so 100 : 45.
    policy = semi_pd(max_step=100)
    assert policy.partition(window((50, 50), 2.5, 0.5, load=0.6, target_s=2.0)) == (100, 45)


def test_windows_of_an_unstable_queue_are_not_fitted() -> None:
    policy = semi_pd(max_step=100, step_pct=1)
    policy.partition(window((50, 50), 50.0, 0.5, load=0.6, target_s=100.0))
    # The one usable point is 2 s at x' - l = 0.1: 1.05 s needs x' = 0.7905, so 100 : 26.
    assert policy.partition(window((70, 30), 2.0, 0.5, load=0.6, target_s=1.05)) == (100, 26)


def test_the_present_share_is_judged_by_what_was_measured() -> None:
    policy = semi_pd()
    for _ in range(20):
        policy.partition(window((50, 50), 0.5, 0.5))
    assert policy.partition(window((50, 50), 1.1, 0.5)) == (55, 50), "the fit still says 0.53"


def test_shares_are_normalised_for_the_estimates() -> None:
    # 100 : 100 is x' = 0.5 like 50 : 50, and needs x' = 0.6: 100 : 66.
    assert semi_pd(max_step=100, step_pct=2).partition(window((100, 100), 1.2, 0.5)) == (100, 66)


def test_static_share_and_none_never_change() -> None:
    static = PolicySpec.parse("static_share:prefill_pct=30,decode_pct=70", "partition").build(0)
    none = PolicySpec.parse("none", "partition").build(0)
    assert (static.initial(), static.partition(window((30, 70), 9.0, 9.0)), static.window_s) == (
        (30, 70),
        (30, 70),
        None,
    )
    assert (none.initial(), none.partition(window((100, 100), 9.0, 9.0)), none.window_s) == (
        (100, 100),
        (100, 100),
        None,
    )
