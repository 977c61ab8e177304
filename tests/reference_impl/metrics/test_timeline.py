"""Running and waiting requests over time."""

from collections.abc import Callable

import numpy as np
import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, timeline

MakeRun = Callable[..., RunLog]


def test_counts_and_kv_follow_the_events(make_run: MakeRun, two_requests: list[Event]) -> None:
    shown = timeline(make_run(two_requests), points=16)  # every quarter of a second
    assert shown.time_s.tolist() == np.arange(0, 4, 0.25).tolist()
    assert shown.running.tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 0]
    assert shown.waiting.tolist() == [1, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert shown.kv_use is not None
    assert shown.kv_use[10] == pytest.approx(0.5)
    assert shown.kv_use[15] == pytest.approx(0.04)


def test_a_preempted_request_waits_again(make_run: MakeRun) -> None:
    events = [
        Event(0.0, "arrive", 0, tokens=4),
        Event(0.0, "admit", 0, 0, tokens=0),
        Event(1.0, "preempt", 0, 0, tokens=0),
        Event(2.0, "admit", 0, 0, tokens=0),
        Event(2.5, "admit", 0, 1, tokens=0),  # on the decode instance: still one request
        Event(3.0, "finish", 0, 0, tokens=1),
    ]
    shown = timeline(make_run(events), points=7)
    assert shown.running.tolist() == [1, 1, 0, 0, 1, 1, 0]
    assert shown.waiting.tolist() == [0, 0, 1, 1, 0, 0, 0]


def test_kv_is_none_where_the_log_does_not_say(make_run: MakeRun, two_requests: list[Event]) -> None:
    assert timeline(make_run(two_requests, instances=[])).kv_use is None
