"""The flat summary: its keys, their definitions, and what is absent."""

from collections.abc import Callable

import numpy as np
import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, definitions, summarise
from reference_impl.metrics.slo import LoggedSlo

MakeRun = Callable[..., RunLog]


def test_every_figure_has_a_definition(make_run: MakeRun, two_requests: list[Event]) -> None:
    found = summarise(make_run(two_requests), LoggedSlo(1.0, 0.1), warmup_requests=1)
    assert set(found) <= set(definitions())
    assert all(np.isfinite(value) for value in found.values())


def test_latencies_are_in_milliseconds_and_interpolate_linearly(make_run: MakeRun, two_requests: list[Event]) -> None:
    found = summarise(make_run(two_requests))
    assert found["ttft_mean_ms"] == 1125.0
    assert found["ttft_p90_ms"] == pytest.approx(np.percentile([1000, 1250], 90))
    assert found["tpot_p50_ms"] == pytest.approx((550 + 250) / 2)
    assert found["itl_p99_ms"] == pytest.approx(np.percentile([250, 250, 250, 500, 750, 1000], 99))
    assert found["e2e_mean_ms"] == 2625.0


def test_rates_are_per_second_of_makespan(make_run: MakeRun, two_requests: list[Event]) -> None:
    found = summarise(make_run(two_requests))
    assert found["throughput_rps"] == pytest.approx(2 / 3.75)
    assert found["output_tokens_per_s"] == pytest.approx(8 / 3.75)
    assert found["total_tokens_per_s"] == pytest.approx(88 / 3.75)


def test_the_warm_up_is_dropped_only_from_the_trimmed_figures(make_run: MakeRun, two_requests: list[Event]) -> None:
    found = summarise(make_run(two_requests), LoggedSlo(1.1, None), warmup_requests=1)
    assert (found["ttft_mean_ms"], found["ttft_mean_ms_trimmed"]) == (1125.0, 1250.0)
    assert found["itl_mean_ms_trimmed"] == 250.0
    assert (found["attainment"], found["attainment_trimmed"]) == (0.5, 0.0)
    assert found["goodput_rps_trimmed"] == 0.0


def test_the_warm_up_is_the_concurrency_limit_but_at_least_128(make_run: MakeRun, two_requests: list[Event]) -> None:
    assert summarise(make_run(two_requests))["warmup_requests"] == 128
    large = {"id": 0, "role": "colocated", "kv_blocks": 100, "max_sequences": 300}
    assert summarise(make_run(two_requests, instances=[large]))["warmup_requests"] == 300


def test_a_run_shorter_than_the_warm_up_has_no_trimmed_figures(make_run: MakeRun, two_requests: list[Event]) -> None:
    assert not [key for key in summarise(make_run(two_requests)) if key.endswith("_trimmed")]


def test_without_an_slo_attainment_is_absent(make_run: MakeRun, two_requests: list[Event]) -> None:
    found = summarise(make_run(two_requests))
    assert not {"attainment", "goodput_rps", "attainment_ttft"} & set(found)


def test_figures_of_nothing_are_absent_not_zero(make_run: MakeRun) -> None:
    found = summarise(make_run([Event(0.0, "arrive", 0, tokens=4), Event(0.0, "reject", 0)]), LoggedSlo(1.0, None))
    assert found["rejected"] == 1
    assert found["attainment"] == 0
    assert not [key for key in found if key.endswith("_ms")]
    assert "throughput_rps" not in found
    assert "prefix_hit_ratio" not in found


def test_an_empty_log_gives_counts_only(make_run: MakeRun) -> None:
    found = summarise(make_run([]), LoggedSlo(1.0, None))
    assert {key for key, value in found.items() if value} == {"warmup_requests"}


def test_contradicting_rows_leave_itl_out_with_a_warning(make_run: MakeRun, two_requests: list[Event]) -> None:
    wrong = [event._replace(tokens=9) if event.kind == "finish" else event for event in two_requests]
    with pytest.warns(UserWarning, match="inter-token latencies are left out"):
        found = summarise(make_run(wrong))
    assert not [key for key in found if key.startswith("itl")]
    assert "tpot_mean_ms" in found
