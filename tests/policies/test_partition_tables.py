"""Partition policies besides semi-PD's: exact tables and decisions."""

from __future__ import annotations

import pytest

from policies.api import Partition, PartitionPolicy, PartitionView
from policies.partition.pdmux_table import group_index, splits
from policies.registry import ParameterError, PolicySpec


def window(
    shares: tuple[int, int] = (100, 100),
    tpot_s: float | None = None,
    *,
    load: float = 0.2,
    kv_use: float = 0.0,
    running: int = 10,
    target_s: float | None = 0.1,
) -> PartitionView:
    """A window in which every request had this TPOT; ``load``: prefill time of its arrivals on the whole device."""
    prefill_pct, decode_pct = shares
    return PartitionView(
        now_s=0.0,
        instance_id=0,
        partition=Partition(prefill_pct, decode_pct),
        window_s=10.0,
        ttft_s=(),
        tpot_s=() if tpot_s is None else (tpot_s,) * 100,
        arrivals=100 if load else 0,
        prefill_busy_s=10.0 * load / (prefill_pct / (prefill_pct + decode_pct)),
        prefilled_requests=100 if load else 0,
        waiting_requests=0,
        running_requests=running,
        ttft_target_s=None,
        tpot_target_s=target_s,
        kv_use=kv_use,
    )


def build(spec: str) -> PartitionPolicy:
    made: PartitionPolicy = PolicySpec.parse(spec, "partition").build(0)
    return made


@pytest.mark.parametrize(
    ("decodes", "index"), [(0, 0), (1, 1), (11, 1), (12, 2), (18, 3), (30, 5), (35, 5), (36, 6), (1000, 6)]
)
def test_pdmux_index_is_that_of_sglang(decodes: int, index: int) -> None:
    assert group_index(decodes, True, 8, 36) == index


def test_pdmux_gives_a_phase_that_is_alone_its_own_group() -> None:
    assert group_index(50, False, 8, 36) == 7
    assert group_index(0, True, 8, 36) == group_index(0, False, 8, 36) == 0


def test_pdmux_splits_are_those_of_sglang() -> None:
    h100 = [(112, 20), (104, 28), (96, 36), (88, 44), (80, 52), (72, 60)]
    assert splits(132, 8, 16, 6) == h100
    assert splits(108, 2, 16, 6) == [(84, 24), (78, 30), (72, 36), (66, 42), (60, 48), (54, 54)]
    assert splits(108, 2, 16, 2) == [(74, 34), (54, 54)], "as an A100 with 4 groups logs them"
    assert splits(132, 8, 16, 20) == h100, "the device has no more"


def test_pdmux_shares_follow_the_decodes() -> None:
    policy = build("pdmux_table")
    assert policy.initial() == (100, 15)
    assert policy.partition(window(running=1)) == (85, 15)
    assert policy.partition(window(running=40)) == (55, 45)
    assert policy.partition(window(running=40, load=0.0)) == (55, 100)


def test_pdmux_refuses_a_device_without_splits() -> None:
    with pytest.raises(ParameterError, match="compute_units=32 has no split"):
        PolicySpec.parse("pdmux_table:compute_units=32,least_units=17", "partition")


def test_duet_stays_aggregated_while_tpot_meets_its_target_or_has_none() -> None:
    policy = build("duet_on_demand")
    assert policy.initial() == (100, 100)
    assert policy.partition(window(tpot_s=0.1)) == (100, 100)
    assert policy.partition(window(tpot_s=9.0, target_s=None)) == (100, 100)


def test_duet_splits_with_the_smallest_decode_share_that_meets_the_target() -> None:
    # One window at half of the device: TPOT = 0.06 / share, so 0.1 s needs 60 %.
    assert build("duet_on_demand").partition(window(tpot_s=0.12)) == (40, 60)
    assert build("duet_on_demand").partition(window(tpot_s=9.0)) == (20, 80)


def test_duet_corrects_its_split_by_what_it_measures() -> None:
    policy = build("duet_on_demand")
    policy.partition(window(tpot_s=0.12))
    # Points (2, 0.12) and (1 / 0.6, 0.11): 0.03 / share + 0.06 <= 0.1 needs 75 %.
    assert policy.partition(window((40, 60), 0.11)) == (25, 75)


def test_duet_aggregates_again_when_the_load_is_gone() -> None:
    policy = build("duet_on_demand")
    shares = policy.partition(window(tpot_s=0.12, load=0.2))
    assert policy.partition(window(shares, 0.1, load=0.19)) != (100, 100)
    assert policy.partition(window(shares, 0.1, load=0.15)) == (100, 100), "0.12 s at a load of 0.2: 0.09 s"
    assert policy.partition(window(shares, 0.1, load=0.0)) == (100, 100)


def test_nexus_favours_prefill_while_kv_is_free_and_decode_when_it_is_tight() -> None:
    # Figure 10: decode takes 1.08 at 90 %; twice that, 2.16, is at 35.3 % of the device. Prefill: 3 / 0.9 is at 30 %.
    assert build("nexus_greedy:step_pct=1,hysteresis_pct=0,prefill_pct=30").partition(window((30, 70))) == (64, 36)
    assert build("nexus_greedy:step_pct=1,hysteresis_pct=0").partition(window((90, 10), kv_use=0.9)) == (30, 70)


def test_nexus_learns_how_decode_depends_on_its_share() -> None:
    policy = build("nexus_greedy:step_pct=1,hysteresis_pct=0")
    policy.partition(window((50, 50), 0.10))
    # Points (2, 0.1) and (4, 0.14): 0.02 / share + 0.06; at 90 % 0.0822, and twice that is at 19.1 % of the device.
    assert policy.partition(window((75, 25), 0.14)) == (80, 20)


def test_nexus_makes_no_small_changes() -> None:
    assert build("nexus_greedy:step_pct=1,hysteresis_pct=10").partition(window((55, 45))) == (55, 45)
    assert build("nexus_greedy:step_pct=1,hysteresis_pct=9").partition(window((55, 45))) == (64, 36)
