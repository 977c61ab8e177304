"""Device time and its price; work refused and work done twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, summarise
from reference_impl.metrics.slo import LoggedSlo

MakeRun = Callable[..., RunLog]
SEMI_PD = {"id": 0, "role": "semi_pd", "kv_blocks": 100, "block_tokens": 16, "devices": 2}
IDLE = {"id": 1, "role": "prefill", "kv_blocks": 100, "block_tokens": 16, "devices": 4}


def _runs(*spans: tuple[str, float, float, int]) -> list[Event]:
    return [
        Event(end, "run", None, 0, lane, tokens, 0, start, 1, end, kv_blocks=1) for lane, start, end, tokens in spans
    ]


def _request(number: int, cached: int = 0) -> list[Event]:
    return [
        Event(0.0, "arrive", number, tokens=32),
        Event(0.0, "admit", number, 0, tokens=cached),
        Event(4.0, "prefilled", number, 0, tokens=1),
        Event(10.0, "finish", number, 0, tokens=1),
    ]


def test_two_lanes_of_one_device_are_busy_once(make_run: MakeRun) -> None:
    spans = (("prefill", 0.0, 3.0, 32), ("decode", 1.0, 2.0, 0), ("decode", 2.5, 4.0, 0), ("prefill", 6.0, 7.0, 0))
    found = summarise(make_run([*_runs(*spans), *_request(0)], instances=[SEMI_PD, IDLE]))
    assert found["device_held_s"] == (2 + 4) * 10
    assert found["device_busy_s"] == 2 * (4 + 1)


def test_cost_follows_from_the_price_and_is_absent_without_one(make_run: MakeRun) -> None:
    told = {"instances": [SEMI_PD], "price_per_device_hour": 3.6}
    found = summarise(make_run([*_request(0), *_request(1)], **told), LoggedSlo(5.0, None))
    assert found["cost"] == pytest.approx(2 * 10 * 0.001)
    assert found["cost_per_million_output_tokens"] == pytest.approx(1e4)
    assert found["cost_per_thousand_good_requests"] == pytest.approx(10)
    missed = summarise(make_run(_request(0), **told), LoggedSlo(1.0, None))
    assert "cost_per_thousand_good_requests" not in missed
    assert not [key for key in summarise(make_run(_request(0))) if key.startswith("cost")]


def test_rejected_work_counts_prompts_and_what_was_given(make_run: MakeRun) -> None:
    failed = [
        Event(0.0, "arrive", 1, tokens=50),
        Event(2.0, "token", 1, tokens=3),
        Event(3.0, "reject", 1, reason="failed"),
    ]
    refused = [Event(0.0, "arrive", 2, tokens=7), Event(0.0, "reject", 2, reason="too long")]
    found = summarise(make_run([*_request(0), *failed, *refused]))
    assert (found["rejected_prompt_tokens"], found["rejected_output_tokens"]) == (57, 3)


def test_recomputed_tokens_are_those_beyond_each_prompt_once(make_run: MakeRun) -> None:
    preempted = Event(5.0, "preempt", 0, 0, tokens=1)
    spans = (("prefill", 0.0, 4.0, 16), ("prefill", 5.0, 6.0, 33))
    assert summarise(make_run([*_runs(*spans), *_request(0, 16), preempted]))["recomputed_tokens"] == 33
    assert summarise(make_run([*_runs(spans[0]), *_request(0, 16)]))["recomputed_tokens"] == 0
    assert "recomputed_tokens" not in summarise(make_run(_request(0)))
