"""Fluidity: deadlines that carry unused slack on and begin anew after a late token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import pytest

from reference_impl.events import Event
from reference_impl.metrics import RunLog, rebuild, summarise, token_times
from reference_impl.metrics.fluidity import fluidity_index
from reference_impl.metrics.slo import LoggedSlo

MakeRun = Callable[..., RunLog]


def _streamed(number: int, arrival_s: float, gaps_s: Sequence[float]) -> list[Event]:
    """A request as its client saw it: its first gap is its TTFT."""
    times = list(accumulate(gaps_s, initial=arrival_s))[1:]
    tokens = [Event(at_s, "token", number, tokens=place) for place, at_s in enumerate(times, 1)]
    return [
        Event(arrival_s, "arrive", number, tokens=4),
        *tokens,
        Event(times[-1], "finish", number, 0, tokens=len(times)),
    ]


def _as_published(gaps_s: Sequence[float], first_s: float, step_s: float) -> float:
    """Etalon's formula, token by token."""
    slack_s, in_time = 0.0, 0
    for place, gap_s in enumerate(gaps_s):
        due_s = (step_s if place else first_s) + slack_s
        late = gap_s > due_s + 1e-9
        slack_s = 0.0 if late else due_s - gap_s
        in_time += not late
    return in_time / len(gaps_s)


@pytest.mark.parametrize(
    ("gaps_s", "index"),
    [
        ([1.0, 0.1, 0.1, 0.1], 1.0),  # each exactly on its deadline
        ([1.5, 0.1, 0.1, 0.1], 0.75),  # a late first token delays the deadlines of the others
        ([0.5, 0.6, 0.1, 0.1], 1.0),  # slack of the first token is used by the second
        ([0.5, 0.4, 0.3, 0.1], 1.0),  # and what is left of it by the third
        ([0.5, 0.7, 0.1, 0.1], 0.75),  # a stall beyond the slack is late once, and the slack is gone
        ([1.0, 0.2, 0.2, 0.2], 0.25),
    ],
)
def test_a_token_is_in_time_within_its_deadline_and_the_slack(
    make_run: MakeRun, gaps_s: Sequence[float], index: float
) -> None:
    found = summarise(make_run(_streamed(0, 2.0, gaps_s)), LoggedSlo(1.0, 0.1))
    assert found["fluidity_mean"] == pytest.approx(index) == _as_published(gaps_s, 1.0, 0.1)
    assert found["fluidity_attainment"] == (index >= 0.9)


def test_it_agrees_with_the_published_loop_on_many_requests(make_run: MakeRun) -> None:
    rng = np.random.default_rng(0)
    gaps = [[float(rng.exponential(1.0)), *rng.gamma(2.0, 0.05, rng.integers(0, 40)).tolist()] for _ in range(50)]
    run = make_run([event for number, own in enumerate(gaps) for event in _streamed(number, 0.5 * number, own)])
    request = np.arange(len(gaps))[::-1].copy()
    due_s, token_s = np.asarray(0.5 * request + 1.0, np.float64), np.where(request % 2, 0.1, 0.08)
    found = fluidity_index(rebuild(run), request, due_s, token_s)
    expected = [_as_published(gaps[number], 1.0, float(step)) for number, step in zip(request, token_s, strict=True)]
    assert found.tolist() == pytest.approx(expected)
    assert 0.2 < found.mean() < 0.95


@pytest.mark.parametrize("step_s", [0.05, 0.1, 0.11, 0.2])
def test_tokens_of_runs_count_as_those_of_clients(make_run: MakeRun, step_s: float) -> None:
    """Two requests share one lane's uneven iterations; the second one joins after the eleventh."""
    ends = np.cumsum(np.random.default_rng(1).gamma(2.0, 0.05, 60)).tolist()
    runs = [
        Event(end_s, "run", None, 0, "mixed", 0, 1, start_s, 1, end_s)
        for start_s, end_s in zip([0.0, *ends], ends, strict=False)
    ]
    first = [Event(0.0, "arrive", 0, tokens=4), Event(0.0, "prefilled", 0, 0, tokens=1)]
    second = [Event(0.5, "arrive", 1, tokens=4), Event(ends[10], "prefilled", 1, 0, tokens=1)]
    finish = [Event(ends[40], "finish", 0, 0, tokens=42), Event(ends[59], "finish", 1, 0, tokens=50)]
    run = make_run([*first, *second, *runs, *finish])
    gaps = [np.diff(token_times(run, number), prepend=came_s).tolist() for number, came_s in ((0, 0.0), (1, 0.5))]
    found = summarise(run, LoggedSlo(0.3, step_s))
    assert found["fluidity_mean"] == pytest.approx(np.mean([_as_published(own, 0.3, step_s) for own in gaps]))


def test_it_needs_both_targets(make_run: MakeRun, two_requests: list[Event]) -> None:
    run = make_run(two_requests)
    for slo in (LoggedSlo(1.0, None), LoggedSlo(None, 1.0)):
        assert not [key for key in summarise(run, slo) if key.startswith("fluidity")]
