"""Token times where instances fail, and where a client measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from reference_impl.events import Event
from reference_impl.metrics import EventLogError, RunLog, per_request, rebuild, summarise, timeline, vllm_bench_json
from reference_impl.metrics.tokens import check

MakeRun = Callable[..., RunLog]
FIRST = [
    Event(0.0, "arrive", 0, tokens=8),
    Event(0.0, "dispatch", 0, 0),
    Event(0.5, "admit", 0, 0, tokens=0),
    Event(1.0, "prefilled", 0, 0, tokens=1),
    Event(5.0, "run", None, 0, "mixed", 0, 1, 1.0, 4, 2.0, 1.0, 0.0),
]
"""Instance 0 generates tokens at 1, 2, 3, 4, 5."""
SECOND = [
    Event(6.0, "dispatch", 0, 1),
    Event(6.5, "admit", 0, 1, tokens=0),
    Event(9.0, "run", None, 1, "mixed", 0, 1, 8.0, 1, 9.0),
]


def lost(tokens: int, time_s: float = 6.0, instance: int = 0) -> Event:
    return Event(time_s, "lost", 0, instance, tokens=tokens)


def again(tokens: int) -> list[Event]:
    """Instance 1 goes on, with tokens at 8 and 9."""
    return [*SECOND, Event(8.0, "prefilled", 0, 1, tokens=tokens + 1), Event(9.0, "finish", 0, 1, tokens=tokens + 2)]


def times(make_run: MakeRun, events: Sequence[Event]) -> list[float]:
    run = make_run(sorted(events, key=lambda event: event.time_s))
    check(run, rebuild(run))
    return [float(time_s) for time_s in rebuild(run).times_s(0)]


@pytest.mark.parametrize(
    ("given", "expected"), [(0, []), (1, [1.0]), (3, [1.0, 2.0, 3.0]), (5, [1.0, 2.0, 3.0, 4.0, 5.0])]
)
def test_only_what_the_client_was_given_counts_when_its_instance_fails(
    make_run: MakeRun, given: int, expected: list[float]
) -> None:
    assert times(make_run, [*FIRST, lost(given), *again(given)]) == [*expected, 8.0, 9.0]


def test_what_an_instance_says_after_it_was_given_up_is_void(make_run: MakeRun) -> None:
    """It had stalled only: it finishes the request, and is told too late that nobody waits."""
    stalled = [
        Event(7.0, "run", None, 0, "mixed", 0, 1, 6.5, 1, 7.0),
        Event(7.5, "pause", 0, 0, tokens=6),
        Event(7.6, "resume", 0, 0, tokens=6),
        Event(8.6, "run", None, 0, "mixed", 0, 1, 7.6, 1, 8.6),
        Event(8.6, "finish", 0, 0, tokens=7),
    ]
    assert times(make_run, [*FIRST, lost(3), *again(3), *stalled]) == [1.0, 2.0, 3.0, 8.0, 9.0]


def test_a_finish_that_the_client_never_heard_of_is_void(make_run: MakeRun) -> None:
    finish = Event(5.0, "finish", 0, 0, tokens=5)
    assert times(make_run, [*FIRST, finish, lost(4), *again(4)]) == [1.0, 2.0, 3.0, 4.0, 8.0, 9.0]


def test_an_instance_counts_again_once_the_request_is_sent_there_again(make_run: MakeRun) -> None:
    events = [event._replace(instance=0) if event.instance == 1 else event for event in again(2)]
    assert times(make_run, [*FIRST, lost(2), *events]) == [1.0, 2.0, 8.0, 9.0]


def test_tokens_whose_rows_went_with_the_instance_count_when_it_was_given_up(make_run: MakeRun) -> None:
    gone = [event for event in FIRST if event.kind not in ("run", "prefilled")]
    events = [*gone, lost(3), *again(3)]
    assert times(make_run, events) == [6.0, 6.0, 6.0, 8.0, 9.0]
    run = make_run(events)
    assert rebuild(run).gaps().expand().tolist() == [1.0, 2.0]
    assert per_request(run).ttft_s.tolist() == [6.0]


def test_what_the_front_door_says_of_them_counts_instead(make_run: MakeRun) -> None:
    gone = [event for event in FIRST if event.kind != "run"]
    shown = [Event(time_s, "token", 0, tokens=i) for i, time_s in enumerate([1.1, 2.1, 3.1], 1)]
    assert times(make_run, [*gone, *shown, lost(3), *again(3)]) == [1.1, 2.1, 3.1, 8.0, 9.0]


def test_a_token_that_the_front_door_says_and_a_loss_counts_counts_once(make_run: MakeRun) -> None:
    """The loss is stamped before the last token that it counts."""
    gone = [event for event in FIRST if event.kind in ("arrive", "dispatch")]
    shown = [Event(time_s, "token", 0, tokens=i) for i, time_s in enumerate([1.1, 2.1, 3.1], 1)]
    assert times(make_run, [*gone, *shown, lost(3, 2.5), *again(3)]) == [1.1, 2.1, 3.1, 8.0, 9.0]


def test_a_hand_over_that_ends_after_its_request_was_lost_there_brings_nothing(make_run: MakeRun) -> None:
    first = [event for event in FIRST if event.kind != "run"]
    late = [
        Event(6.2, "transfer", 0, 1, "decode", 8, None, 1.0),
        Event(6.3, "admit", 0, 1, "decode", 0),
        Event(7.5, "run", None, 1, "decode", 0, 1, 6.4, 1, 7.5),
        Event(7.6, "finish", 0, 1, tokens=2),
    ]
    anew = [
        Event(7.0, "dispatch", 0, 0),
        Event(7.1, "admit", 0, 0, tokens=0),
        Event(8.0, "prefilled", 0, 0, tokens=2),
        Event(9.0, "run", None, 0, "mixed", 0, 1, 8.0, 1, 9.0),
        Event(9.0, "finish", 0, 0, tokens=3),
    ]
    assert times(make_run, [*first, lost(1, 6.0, 1), *late, *anew]) == [1.0, 8.0, 9.0]


def test_a_hand_over_of_a_request_that_is_lost_at_its_source_brings_nothing(make_run: MakeRun) -> None:
    """Its decode instance had all of the KV, and decodes until it hears of it."""
    moved = [
        Event(6.2, "transfer", 0, 2, tokens=9, start_s=5.9),
        Event(6.4, "run", None, 2, "mixed", 0, 1, 6.2, 1, 6.4),
    ]
    later = [event._replace(time_s=6.8) if event.kind == "dispatch" else event for event in again(1)]
    admitted = [event._replace(time_s=6.9) if event.kind == "admit" else event for event in later]
    assert times(make_run, [*FIRST[:4], lost(1), *moved, *admitted]) == [1.0, 8.0, 9.0]


def test_a_request_may_be_lost_twice(make_run: MakeRun) -> None:
    second = [event for event in again(2) if event.kind != "finish"]
    third = [
        Event(10.0, "dispatch", 0, 0),
        Event(11.0, "prefilled", 0, 0, tokens=4),
        Event(11.0, "finish", 0, 0, tokens=4),
    ]
    assert times(make_run, [*FIRST, lost(2), *second, lost(3, 10.0, 1), *third]) == [1.0, 2.0, 8.0, 11.0]


def test_first_token_and_paths_of_a_request_whose_first_attempt_gave_nothing(make_run: MakeRun) -> None:
    run = make_run(sorted([*FIRST, lost(0), *again(0)], key=lambda event: event.time_s))
    table = per_request(run)
    assert table.ttft_s.tolist() == [8.0]
    assert table.path(0) == (0, 1)
    assert table.preemptions.tolist() == [0]


def test_a_lost_request_is_not_running(make_run: MakeRun) -> None:
    run = make_run(sorted([*FIRST, lost(3, 5.5), *again(3)], key=lambda event: event.time_s))
    drawn = timeline(run, points=19)
    running = dict(zip(drawn.time_s.tolist(), drawn.running.tolist(), strict=True))
    assert [running[at_s] for at_s in (0.0, 1.0, 5.5, 6.0, 6.5, 8.5, 9.0)] == [0, 1, 0, 0, 1, 1, 0]


# --------------------------------------------------------------------------------------------------- from outside


@pytest.fixture
def client() -> list[Event]:
    """A client's log: chunks of 1, 3 and 1 tokens; another request that fails after one."""
    return [
        Event(0.0, "arrive", 0, tokens=8),
        Event(0.5, "arrive", 1, tokens=8),
        Event(1.0, "token", 0, tokens=1),
        Event(1.5, "token", 1, tokens=1),
        Event(2.0, "token", 0, tokens=4),
        Event(2.5, "reject", 1, reason="reset"),
        Event(2.6, "token", 0, tokens=4),
        Event(4.0, "token", 0, tokens=5),
        Event(4.0, "finish", 0, 0, tokens=5),
    ]


def test_a_client_sees_tokens_when_they_come(make_run: MakeRun, client: list[Event]) -> None:
    run = make_run(client)
    tokens = rebuild(run)
    check(run, tokens)
    assert tokens.times_s(0).tolist() == [1.0, 2.0, 2.0, 2.0, 4.0]
    assert tokens.times_s(1).tolist() == [1.5]
    assert tokens.counts(2).tolist() == [5, 1]


def test_tokens_that_came_together_have_no_gap_between_them(make_run: MakeRun, client: list[Event]) -> None:
    run = make_run(client)
    figures = summarise(run)
    assert (figures["itl_mean_ms"], figures["tpot_mean_ms"], figures["ttft_mean_ms"]) == (1500.0, 750.0, 1000.0)
    assert (figures["completed"], figures["rejected"]) == (1, 1)
    detailed: dict[str, Any] = vllm_bench_json(run, detailed=True)
    assert detailed["itls"][0] == [1.0, 2.0]
    assert detailed["max_output_tokens_per_s"] == 3.0


def test_a_client_that_counts_backwards_is_refused(make_run: MakeRun, client: list[Event]) -> None:
    wrong = [event._replace(tokens=2) if event.time_s == 2.6 else event for event in client]
    with pytest.raises(EventLogError, match="request 0 was given 4 tokens, and later 2"):
        rebuild(make_run(wrong))
