"""The keys of ``vllm bench serve``."""

import json
from collections.abc import Callable

import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, vllm_bench_json
from reference_impl.metrics.slo import LoggedSlo

MakeRun = Callable[..., RunLog]


def test_the_totals_and_statistics_carry_vllms_names(make_run: MakeRun, two_requests: list[Event]) -> None:
    found = vllm_bench_json(make_run(two_requests, offered_rps=4.0), LoggedSlo(1.1, 0.6))
    assert json.loads(json.dumps(found)) == found
    assert (found["num_prompts"], found["completed"], found["failed"], found["request_rate"]) == (2, 2, 0, 4.0)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (80, 8)
    assert found["duration"] == 3.75
    assert found["request_goodput"] == pytest.approx(1 / 3.75)
    assert (found["mean_ttft_ms"], found["median_ttft_ms"], found["std_ttft_ms"]) == (1125.0, 1125.0, 125.0)
    assert {f"{s}_{f}_ms" for s in ("mean", "median", "std", "p99") for f in ("ttft", "tpot", "itl", "e2el")} <= set(
        found
    )


def test_the_busiest_second_is_counted_as_vllm_does(make_run: MakeRun, two_requests: list[Event]) -> None:
    found = vllm_bench_json(make_run(two_requests))
    assert found["max_output_tokens_per_s"] == 4  # in [2, 3): 2.0, 2.5 and two at 2.75
    assert found["max_concurrent_requests"] == 2


def test_latencies_are_over_completed_requests_only(make_run: MakeRun, two_requests: list[Event]) -> None:
    unfinished = [event for event in two_requests if not (event.kind == "finish" and event.request == 1)]
    found = vllm_bench_json(make_run(unfinished))
    assert (found["completed"], found["failed"], found["mean_ttft_ms"]) == (1, 1, 1000.0)


def test_the_details_list_every_request(make_run: MakeRun, two_requests: list[Event]) -> None:
    found = vllm_bench_json(make_run(two_requests), detailed=True)
    assert found["itls"] == [[0.5, 0.25, 0.25, 0.75, 1.0], [0.25]]
    assert found["ttfts"] == [1.0, 1.25]
    assert found["input_lens"] == [32, 48]
    assert found["errors"] == ["", ""]
