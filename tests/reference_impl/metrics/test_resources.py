"""KV use, lanes, prefix hits."""

from collections.abc import Callable

import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, per_request, timeline
from reference_impl.metrics.resources import kv_use, lane_utilisation, prefix_hit_ratio

MakeRun = Callable[..., RunLog]


def test_kv_use_is_weighted_by_time(make_run: MakeRun, two_requests: list[Event]) -> None:
    found = kv_use(make_run(two_requests))
    assert found["kv_use_peak"] == 0.5
    block_seconds = 2 * 0.75 + 3 * 1.0 + 50 * 0.5 + 50 * 0.25 + 4 * 1.0
    assert found["kv_use_mean"] == pytest.approx(block_seconds / (100 * 3.75))


def test_kv_use_of_overlapping_lanes_counts_the_pool_once(make_run: MakeRun) -> None:
    semi_pd = {"id": 0, "role": "semi_pd", "kv_blocks": 10}
    events = [
        Event(0.0, "arrive", 0, tokens=4),
        Event(1.0, "run", None, 0, "decode", 0, 1, 0.0, 1, 1.0, kv_blocks=4),
        Event(4.0, "run", None, 0, "prefill", 4, 0, 0.0, 1, 4.0, kv_blocks=6),
        Event(4.0, "finish", 0, 0, tokens=1),
    ]
    assert kv_use(make_run(events, instances=[semi_pd]))["kv_use_mean"] == pytest.approx((4 * 1 + 6 * 3) / 40)


def test_kv_use_holds_while_the_other_lane_is_under_way(make_run: MakeRun) -> None:
    """A decode starts first and ends last; the prefill within it reports in between."""
    semi_pd = {"id": 0, "role": "semi_pd", "kv_blocks": 10}
    events = [
        Event(0.0, "arrive", 0, tokens=4),
        Event(4.0, "run", None, 0, "prefill", 4, 0, 3.0, 1, 4.0, kv_blocks=6),
        Event(10.0, "run", None, 0, "decode", 0, 1, 1.0, 1, 10.0, kv_blocks=5),
        Event(12.0, "run", None, 0, "decode", 0, 1, 11.0, 1, 12.0, kv_blocks=2),
        Event(12.0, "finish", 0, 0, tokens=3),
    ]
    run = make_run(events, instances=[semi_pd])
    computing_from_1_to_4, to_10, idle_to_11_then_to_12 = 6 * 3.0, 5 * 6.0, 2 * 1.0
    expected = (computing_from_1_to_4 + to_10 + idle_to_11_then_to_12) / (10 * 12.0)
    assert kv_use(run)["kv_use_mean"] == pytest.approx(expected)
    shown = timeline(run, points=25).kv_use  # every half second
    assert shown is not None
    assert shown[[1, 4, 7, 12, 21, 23]].tolist() == pytest.approx([0, 0.6, 0.6, 0.5, 0, 0.2])


def test_kv_use_is_absent_without_pool_sizes_or_samples(make_run: MakeRun, two_requests: list[Event]) -> None:
    assert kv_use(make_run(two_requests, instances=[{"id": 0, "role": "colocated"}])) == {}
    unsampled = [event._replace(kv_blocks=None) for event in two_requests]
    assert kv_use(make_run(unsampled)) == {}


def test_a_lane_that_never_ran_lowers_utilisation(make_run: MakeRun, two_requests: list[Event]) -> None:
    busy_s = 3.5
    assert lane_utilisation(make_run(two_requests))["lane_utilisation"] == pytest.approx(busy_s / 3.75)
    idle = {"id": 1, "role": "colocated", "kv_blocks": 100}
    found = lane_utilisation(make_run(two_requests, instances=[{"id": 0, "role": "colocated"}, idle]))
    assert found["lane_utilisation"] == pytest.approx(busy_s / 7.5)


def test_the_lanes_of_semi_pd_are_reported_apart(make_run: MakeRun) -> None:
    events = [
        Event(0.0, "arrive", 0, tokens=4),
        Event(1.0, "run", None, 0, "prefill", 4, 0, 0.0, 1, 1.0),
        Event(4.0, "run", None, 0, "decode", 0, 1, 1.0, 3, 2.0, 1.0),
        Event(4.0, "finish", 0, 0, tokens=4),
    ]
    found = lane_utilisation(make_run(events, instances=[{"id": 0, "role": "semi_pd"}]))
    assert found == {"lane_utilisation": 0.5, "lane_utilisation_prefill": 0.25, "lane_utilisation_decode": 0.75}


def test_prefix_hits_count_admitted_prompts_only(make_run: MakeRun, two_requests: list[Event]) -> None:
    never = Event(3.0, "arrive", 2, tokens=1000)
    table = per_request(make_run([*two_requests, never]))
    assert prefix_hit_ratio(table) == {"prefix_hit_ratio": 16 / 80}


def test_prefix_hit_ratio_is_absent_where_nothing_was_admitted(make_run: MakeRun) -> None:
    assert prefix_hit_ratio(per_request(make_run([Event(0.0, "arrive", 0, tokens=4)]))) == {}
