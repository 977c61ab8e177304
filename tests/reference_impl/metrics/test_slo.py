"""Attainment: joint, over all arrived requests."""

from collections.abc import Callable

import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, summarise
from reference_impl.metrics.slo import LoggedSlo, met

MakeRun = Callable[..., RunLog]


def _request(number: int, first_s: float, last_s: float, tokens: int) -> list[Event]:
    return [
        Event(0.0, "arrive", number, tokens=4),
        Event(first_s, "prefilled", number, 0, tokens=1),
        Event(last_s, "finish", number, 0, tokens=tokens),
    ]


@pytest.mark.parametrize(
    ("first_s", "last_s", "tokens", "good"),
    [
        (1.0, 2.0, 11, True),  # both exactly on target
        (1.001, 2.0, 11, False),  # first token late
        (0.5, 2.0, 11, False),  # slow afterwards
        (1.0, 1.0, 1, True),  # one token: no TPOT, judged on TTFT alone
        (1.5, 1.5, 1, False),
    ],
)
def test_every_target_must_be_met(make_run: MakeRun, first_s: float, last_s: float, tokens: int, good: bool) -> None:
    run = make_run(_request(0, first_s, last_s, tokens))
    assert met(run, LoggedSlo(1.0, 0.1)).every.tolist() == [good]


def test_a_target_that_is_not_set_is_not_judged(make_run: MakeRun) -> None:
    run = make_run(_request(0, 9.0, 9.5, 11))
    assert met(run, LoggedSlo(None, 0.1)).every.tolist() == [True]
    assert met(run, LoggedSlo(9.0, None)).every.tolist() == [True]


@pytest.mark.filterwarnings("ignore:inter-token latencies are left out")
def test_rejected_and_unfinished_requests_are_misses(make_run: MakeRun) -> None:
    rejected = [Event(0.0, "arrive", 1, tokens=4), Event(0.0, "reject", 1)]
    unfinished = [Event(0.0, "arrive", 2, tokens=4), Event(0.5, "prefilled", 2, 0, tokens=1)]
    found = summarise(make_run([*_request(0, 0.5, 1.0, 11), *rejected, *unfinished]), LoggedSlo(1.0, 0.1))
    assert found["attainment"] == pytest.approx(1 / 3)
    assert found["attainment_ttft"] == pytest.approx(1 / 3)
    assert found["goodput_rps"] == 1.0
    assert (found["completed"], found["rejected"], found["unfinished"]) == (1, 1, 1)


def test_the_log_states_its_own_targets(make_run: MakeRun, two_requests: list[Event]) -> None:
    run = make_run(two_requests, slo={"ttft_s": 1.1, "tpot_s": None})
    assert summarise(run)["attainment"] == 0.5
    assert summarise(run, LoggedSlo(2.0, None))["attainment"] == 1.0
