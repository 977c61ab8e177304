"""Whether the load had settled when the last request arrived."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog
from reference_impl.metrics.log import Floats
from reference_impl.metrics.settling import load_growth

MakeRun = Callable[..., RunLog]
EVERY_SECOND = np.arange(501.0)


def _events(arrivals_s: Floats, stays_s: Floats) -> Iterator[Event]:
    for request, (arrival_s, stay_s) in enumerate(zip(arrivals_s.tolist(), stays_s.tolist(), strict=True)):
        yield Event(arrival_s, "arrive", request, tokens=1)
        yield Event(arrival_s + stay_s, "finish", request, 0, tokens=1)


def test_a_queue_that_grows_from_nothing_has_growth_of_four_fifths(make_run: MakeRun) -> None:
    """Half of what arrives is served, so the n-th request waits n seconds."""
    found = load_growth(make_run(list(_events(EVERY_SECOND, EVERY_SECOND))))
    assert found["load_growth"] == pytest.approx(0.8, abs=0.01)
    assert found["load_growing"] == 1


def test_a_load_that_a_fleet_keeps_up_with_does_not_grow(make_run: MakeRun) -> None:
    found = load_growth(make_run(list(_events(EVERY_SECOND, np.full(501, 40.0)))))
    assert found == {"load_growth": pytest.approx(0, abs=1e-9), "load_growing": 0}


def test_a_run_that_ends_while_the_fleet_fills_has_not_settled(make_run: MakeRun) -> None:
    assert load_growth(make_run(list(_events(EVERY_SECOND, np.full(501, 600.0)))))["load_growing"] == 1


def test_a_handful_of_requests_is_no_trend(make_run: MakeRun) -> None:
    """3 outstanding in the middle, 5 at the end."""
    stays_s = np.where(EVERY_SECOND < 350, 3.0, 5.0)
    found = load_growth(make_run(list(_events(EVERY_SECOND, stays_s))))
    assert found["load_growth"] == pytest.approx(2 / 3, rel=0.01)
    assert found["load_growing"] == 0


def test_more_requests_at_a_higher_rate_are_no_growth(make_run: MakeRun) -> None:
    """The rate doubles in the second half; every request stays for 20 s."""
    arrivals_s = np.concatenate([np.arange(0, 400, 0.5), np.arange(400, 600.25, 0.25)])
    found = load_growth(make_run(list(_events(arrivals_s, np.full(len(arrivals_s), 20.0)))))
    assert found["load_growth"] == pytest.approx(0, abs=0.02)
    assert found["load_growing"] == 0


def test_a_backlog_that_is_being_worked_off_is_no_growth(make_run: MakeRun) -> None:
    """A burst, then few arrivals: more outstanding requests for each that arrives, but ever fewer of them."""
    burst_s = np.linspace(150.0, 200.0, 500)
    arrivals_s = np.concatenate([np.arange(150.0), burst_s, np.arange(200.0, 300.0), np.arange(300.0, 501.0, 10.0)])
    stays_s = np.where((arrivals_s >= 150) & (arrivals_s < 200), (arrivals_s - 150) * 5 + 90, 5.0)
    found = load_growth(make_run(list(_events(arrivals_s, stays_s))))
    assert found["load_growth"] < 0
    assert found["load_growing"] == 0


def test_requests_of_one_moment_tell_nothing(make_run: MakeRun) -> None:
    assert load_growth(make_run(list(_events(np.zeros(50), np.ones(50))))) == {}
    assert load_growth(make_run([])) == {}


def test_a_rejected_request_is_not_outstanding(make_run: MakeRun) -> None:
    events = [
        event if event.kind == "arrive" else Event(event.time_s - 500.0, "reject", event.request)
        for event in _events(EVERY_SECOND, np.full(501, 501.0))
    ]
    assert load_growth(make_run(events))["load_growing"] == 0
