"""Service by tenant: Jain's index, and the gap between tenants that both wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, summarise
from reference_impl.request_labels import packed

MakeRun = Callable[..., RunLog]


def _served(number: int, arrival_s: float, admitted_s: float, first_s: float) -> list[Event]:
    """10 prompt tokens and one output token: a service of 12, when the first token comes."""
    return [
        Event(arrival_s, "arrive", number, tokens=10),
        Event(admitted_s, "admit", number, 0, tokens=0),
        Event(first_s, "prefilled", number, 0, tokens=1),
        Event(first_s, "finish", number, 0, tokens=1),
    ]


def _run(make_run: MakeRun, tenants: str, rows: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    events = [event for number, row in enumerate(rows) for event in _served(number, *row)]
    events.sort(key=lambda event: event.time_s)
    return summarise(make_run(events, **packed({"tenant": list(tenants)})))


def test_the_gap_is_what_one_tenant_got_beyond_another_that_waited(make_run: MakeRun) -> None:
    """Both always have one waiting; ``a`` gets three requests served, then ``b`` one."""
    rows = [(0, 0.5, 1), (0, 1, 2), (0, 2, 3), (0, 20, 21), (0, 3, 4), (0, 30, 31), (10, 40, 41)]
    found = _run(make_run, "aaaabba", rows)
    assert found["service_gap"] == 24  # from a's first token on: 12, 24 and 36, then 24 more than b
    assert found["jain_service"] == pytest.approx((36 + 12) ** 2 / (2 * (36**2 + 12**2)))


def test_service_without_competition_is_no_gap(make_run: MakeRun) -> None:
    """``b`` comes only when ``a`` has had everything: nobody waited beside another."""
    found = _run(make_run, "aaab", [(0, 0.5, 1), (0, 1, 2), (0, 2, 3), (10, 10, 11)])
    assert found["service_gap"] == 0
    assert found["jain_service"] == 0.5


def test_what_comes_after_the_last_arrival_does_not_count(make_run: MakeRun) -> None:
    found = _run(make_run, "aaabb", [(0, 0.5, 1), (0, 10, 11), (0, 40, 41), (0, 50, 51), (5, 60, 61)])
    assert (found["service_gap"], found["jain_service"]) == (0, 0.5)


def test_one_tenant_is_compared_with_nobody(make_run: MakeRun) -> None:
    found = _run(make_run, "aa", [(0, 0.5, 1), (0, 1, 2)])
    assert not {"jain_service", "service_gap"} & set(found)
