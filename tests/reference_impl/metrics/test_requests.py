"""What became of each request."""

from collections.abc import Callable

import numpy as np
import pytest

from reference_impl.events import Event
from reference_impl.metrics import EventLogError, RunLog, per_request

MakeRun = Callable[..., RunLog]


def test_latencies_count_from_the_front_door(make_run: MakeRun, two_requests: list[Event]) -> None:
    table = per_request(make_run(two_requests))
    assert table.ttft_s.tolist() == [1.0, 1.25]
    assert table.e2e_s.tolist() == [3.75, 1.5]
    assert table.tpot_s.tolist() == [pytest.approx(2.75 / 5), 0.25]
    assert table.output_tokens.tolist() == [6, 2]
    assert table.cached_tokens.tolist() == [16, 0]
    assert [table.outcome(row) for row in range(2)] == ["finished", "finished"]


def test_one_output_token_has_no_tpot(make_run: MakeRun) -> None:
    events = [
        Event(0.0, "arrive", 0, tokens=4),
        Event(1.0, "prefilled", 0, 0, tokens=1),
        Event(1.0, "finish", 0, 0, tokens=1),
    ]
    table = per_request(make_run(events))
    assert np.isnan(table.tpot_s[0])
    assert table.e2e_s[0] == 1.0


def test_rejected_and_unfinished_requests_are_told_apart(make_run: MakeRun) -> None:
    events = [
        Event(0.0, "arrive", 0, tokens=4),
        Event(0.0, "reject", 0, reason="too long"),
        Event(0.0, "arrive", 1, tokens=4),
        Event(1.0, "prefilled", 1, 0, tokens=1),
    ]
    table = per_request(make_run(events))
    assert [table.outcome(row) for row in range(2)] == ["rejected", "unfinished"]
    assert np.isnan(table.ttft_s[0])
    assert table.ttft_s[1] == 1.0
    assert np.isnan(table.e2e_s).all()


def test_readmission_counts_as_preemption_but_not_as_first_admission(make_run: MakeRun) -> None:
    events = [
        Event(0.0, "arrive", 0, tokens=40),
        Event(0.0, "admit", 0, 0, tokens=16),
        Event(1.0, "prefilled", 0, 0, tokens=1),
        Event(2.0, "preempt", 0, 0, tokens=1),
        Event(2.0, "admit", 0, 0, tokens=32),
        Event(3.0, "prefilled", 0, 0, tokens=2),
        Event(3.0, "finish", 0, 0, tokens=2),
    ]
    table = per_request(make_run(events))
    assert table.preemptions.tolist() == [1]
    assert table.cached_tokens.tolist() == [16]
    assert table.first_token_s.tolist() == [1.0]


def test_the_path_lists_dispatches_and_hand_overs_in_order(make_run: MakeRun) -> None:
    events = [
        Event(0.0, "arrive", 5, tokens=40),
        Event(0.0, "dispatch", 5, 2),
        Event(1.0, "arrive", 3, tokens=40),
        Event(1.0, "dispatch", 3, 1),
        Event(2.0, "transfer", 5, 7, tokens=40, start_s=1.5),
    ]
    table = per_request(make_run(events))
    assert table.request.tolist() == [5, 3]
    assert [table.path(row) for row in range(2)] == [(2, 7), (1,)]


def test_a_request_that_arrives_twice_is_refused(make_run: MakeRun) -> None:
    run = make_run([Event(0.0, "arrive", 4, tokens=1), Event(1.0, "arrive", 4, tokens=1)])
    with pytest.raises(EventLogError, match="request 4 arrives twice"):
        per_request(run)


@pytest.mark.parametrize("request_id", [0, 9])
def test_an_event_of_a_request_that_never_arrived_is_refused(make_run: MakeRun, request_id: int) -> None:
    run = make_run([Event(0.0, "arrive", 1, tokens=1), Event(1.0, "finish", request_id, 0, tokens=1)])
    with pytest.raises(EventLogError, match=f"finish of request {request_id}, which never arrived"):
        per_request(run)
