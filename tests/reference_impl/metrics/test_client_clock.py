"""Figures of a log that a client wrote: keys of their own, and token times from what it saw."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, definitions, itl, per_request, summarise, token_times
from reference_impl.metrics.client_clock import client_definitions, on_client_clock

MakeRun = Callable[..., RunLog]
SEEN = [
    Event(0.0, "arrive", 0, tokens=32),
    Event(0.5, "arrive", 1, tokens=16),
    Event(1.0, "token", 0, tokens=1),
    Event(1.5, "token", 0, tokens=4),
    Event(2.0, "token", 0, tokens=5),
    Event(2.0, "finish", 0, 0, tokens=5),
    Event(2.5, "token", 1, tokens=1),
    Event(3.0, "reject", 1, reason="closed: the connection broke"),
]


def test_token_times_are_what_the_client_saw(make_run: MakeRun) -> None:
    run = make_run(SEEN, instances=[], clock="client")
    assert token_times(run, 0).tolist() == [1.0, 1.5, 1.5, 1.5, 2.0]
    assert itl(run).tolist() == [0.5, 0.5]
    table = per_request(run)
    assert table.ttft_s.tolist() == [1.0, 2.0]
    assert table.tpot_s[0] == 0.25
    assert table.e2e_s[0] == 2.0
    assert [table.outcome(row) for row in (0, 1)] == ["finished", "rejected"]


def test_figures_that_read_a_clock_say_whose(make_run: MakeRun) -> None:
    metrics = on_client_clock(summarise(make_run(SEEN, instances=[], slo={"ttft_s": 1.5, "tpot_s": None})))
    assert (metrics["arrived"], metrics["completed"], metrics["rejected"]) == (2, 1, 1)
    assert metrics["ttft_mean_ms_client"] == 1_500
    assert metrics["tpot_mean_ms_client"] == 250
    assert metrics["attainment_client"] == 0.5
    assert not {"ttft_mean_ms", "attainment", "preemptions", "preemptions_client", "makespan_s"} & set(metrics)


def test_every_key_is_defined(make_run: MakeRun) -> None:
    run = make_run(SEEN, instances=[], slo={"ttft_s": 1.5, "tpot_s": 0.5}, offered_rps=2.0)
    metrics = on_client_clock(summarise(run, warmup_requests=1))
    assert any(key.endswith("_trimmed_client") for key in metrics)
    assert set(metrics) <= set(client_definitions())
    assert all(text.endswith("clock.") for key, text in client_definitions().items() if key.endswith("_client"))


@pytest.mark.parametrize("key", ["ttft_mean_ms", "goodput_rps", "attainment", "makespan_s", "itl_p99_ms_trimmed"])
def test_no_key_of_a_client_is_a_key_of_a_front_door(key: str) -> None:
    assert key in definitions()
    assert key not in client_definitions()
    assert f"{key}_client" in client_definitions()
