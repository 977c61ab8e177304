"""Token times rebuilt from runs, against times that are known and against a plain reading of the documented rule."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from reference_impl.events import Event
from reference_impl.metrics import EventLogError, RunLog, itl, rebuild, token_times
from reference_impl.metrics.tokens import check

MakeRun = Callable[..., RunLog]


def test_token_times_of_a_colocated_instance(make_run: MakeRun, two_requests: list[Event]) -> None:
    run = make_run(two_requests)
    assert token_times(run, 0).tolist() == [1.0, 1.5, 1.75, 2.0, 2.75, 3.75]
    assert token_times(run, 1).tolist() == [2.5, 2.75]


def test_pooled_gaps_hold_every_gap_once_per_request(make_run: MakeRun, two_requests: list[Event]) -> None:
    assert itl(make_run(two_requests)).tolist() == [0.25, 0.25, 0.25, 0.5, 0.75, 1.0]


def test_pooled_gaps_leave_unfinished_requests_out(make_run: MakeRun, two_requests: list[Event]) -> None:
    unfinished = [event for event in two_requests if not (event.kind == "finish" and event.request == 0)]
    run = make_run(unfinished)
    assert itl(run).tolist() == [0.25]
    assert rebuild(run).gaps().size == 6


def test_iterations_of_a_run_grow_as_documented(make_run: MakeRun) -> None:
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(1.0, "prefilled", 0, 0, tokens=1),
            Event(1.0, "run", None, 0, "mixed", 8, 0, 0.0, 1, 1.0),
            Event(8.0, "finish", 0, 0, tokens=5),
            Event(8.0, "run", None, 0, "mixed", 0, 1, 1.0, 4, 2.0, 1.5, 0.5),
        ]
    )
    assert token_times(run, 0).tolist() == [1.0, 2.0, 3.5, 5.5, 8.0]


def test_a_preempted_request_gets_no_tokens_until_it_is_prefilled_again(make_run: MakeRun) -> None:
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(1.0, "prefilled", 0, 0, tokens=1),
            Event(2.0, "run", None, 0, "mixed", 0, 1, 1.0, 1, 2.0),
            Event(2.0, "preempt", 0, 0, tokens=2),
            Event(5.0, "run", None, 0, "mixed", 0, 1, 2.0, 3, 3.0, 1.0, 0.0),
            Event(6.0, "prefilled", 0, 0, tokens=3),
            Event(6.0, "run", None, 0, "mixed", 10, 1, 5.0, 1, 6.0),
            Event(7.0, "finish", 0, 0, tokens=4),
            Event(7.0, "run", None, 0, "mixed", 0, 2, 6.0, 1, 7.0),
        ]
    )
    assert token_times(run, 0).tolist() == [1.0, 2.0, 6.0, 7.0]
    assert itl(run).tolist() == [1.0, 1.0, 4.0]


def test_a_paused_request_skips_iterations(make_run: MakeRun) -> None:
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(1.0, "prefilled", 0, 0, tokens=1),
            Event(1.0, "pause", 0, 0),
            Event(3.0, "run", None, 0, "mixed", 0, 1, 1.0, 2, 2.0, 1.0, 0.0),
            Event(3.0, "resume", 0, 0),
            Event(4.0, "finish", 0, 0, tokens=2),
            Event(4.0, "run", None, 0, "mixed", 0, 2, 3.0, 1, 4.0),
        ]
    )
    assert token_times(run, 0).tolist() == [1.0, 4.0]


def test_a_decode_iteration_that_began_before_the_prompt_was_done_yields_nothing(make_run: MakeRun) -> None:
    """semi-PD: the prefill lane ends within an iteration of the decode lane."""
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(1.5, "prefilled", 0, 0, tokens=1),
            Event(1.5, "run", None, 0, "prefill", 8, 0, 0.0, 1, 1.5),
            Event(3.0, "finish", 0, 0, tokens=2),
            Event(3.0, "run", None, 0, "decode", 0, 1, 0.0, 3, 1.0, 1.0, 0.0),
        ]
    )
    assert token_times(run, 0).tolist() == [1.5, 3.0]


def test_a_request_that_joins_later_has_no_part_in_the_iterations_before(make_run: MakeRun) -> None:
    """Planned ahead: the iteration from 2 on was made up before the prompt was done."""
    events = [
        Event(0.0, "arrive", 0, tokens=8),
        Event(1.5, "prefilled", 0, 0, tokens=1),
        Event(1.5, "run", None, 0, "prefill", 8, 0, 0.0, 1, 1.5),
        Event(3.0, "join", 0, 0, tokens=1),
        Event(4.0, "finish", 0, 0, tokens=2),
        Event(4.0, "run", None, 0, "decode", 0, 1, 1.0, 3, 2.0, 1.0, 0.0),
    ]
    assert token_times(make_run(events), 0).tolist() == [1.5, 4.0]
    assert token_times(make_run([event for event in events if event.kind != "join"]), 0).tolist() == [1.5, 3.0, 4.0]


@pytest.mark.parametrize("kind", ["finish", "reject"])
def test_nothing_of_a_request_counts_after_its_end_in_one_moment(make_run: MakeRun, kind: str) -> None:
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(1.0, "prefilled", 0, 0, tokens=1),
            Event(2.0, kind, 0, 0, tokens=1, reason="left"),
            Event(2.0, "join", 0, 0, tokens=1),
            Event(3.0, "run", None, 0, "mixed", 0, 1, 2.0, 1, 3.0),
        ]
    )
    assert token_times(run, 0).tolist() == [1.0]


def test_after_a_hand_over_tokens_come_from_the_other_instance(make_run: MakeRun) -> None:
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(1.0, "prefilled", 0, 0, tokens=1),
            Event(1.0, "run", None, 0, "prefill", 8, 0, 0.0, 1, 1.0),
            Event(2.0, "run", None, 1, "decode", 0, 1, 0.0, 2, 1.0, 1.0, 0.0),
            Event(2.0, "transfer", 0, 1, tokens=8, start_s=1.0),
            Event(3.0, "finish", 0, 1, tokens=2),
            Event(3.0, "run", None, 1, "decode", 0, 2, 2.0, 1, 3.0),
        ]
    )
    assert token_times(run, 0).tolist() == [1.0, 3.0]


def test_a_request_that_is_preempted_the_moment_it_is_handed_over_takes_no_part(make_run: MakeRun) -> None:
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(1.0, "prefilled", 0, 0, tokens=1),
            Event(2.0, "transfer", 0, 1, tokens=8, start_s=1.0),
            Event(2.0, "preempt", 0, 1, tokens=1),
            Event(3.0, "run", None, 1, "decode", 0, 1, 2.0, 1, 3.0),
            Event(4.0, "prefilled", 0, 0, tokens=2),
            Event(4.0, "finish", 0, 0, tokens=2),
        ]
    )
    assert token_times(run, 0).tolist() == [1.0, 4.0]


@pytest.mark.parametrize(("ahead_ns", "tokens"), [(0.4, 3), (1.0, 2)])
def test_a_hand_over_joins_the_iteration_that_starts_in_its_nanosecond_and_none_before(
    make_run: MakeRun, ahead_ns: float, tokens: int
) -> None:
    """Simulated: a transfer that ends 1 ns after an iteration has begun misses it."""
    start_s = 0.307920134
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(0.2, "prefilled", 0, 0, tokens=1),
            Event(start_s + ahead_ns * 1e-9, "transfer", 0, 1, tokens=8, start_s=0.25),
            Event(1.0, "run", None, 1, "decode", 0, 1, start_s, 1, 1.0),
            Event(2.0, "run", None, 1, "decode", 0, 1, 1.0, 1, 2.0),
            Event(2.0, "finish", 0, 1, tokens=tokens),
        ]
    )
    assert len(token_times(run, 0)) == tokens
    check(run, rebuild(run))


def test_a_preemption_in_the_nanosecond_of_the_hand_over_ends_it(make_run: MakeRun) -> None:
    """The transfer's own time may be the later one by a fraction of the nanosecond that both fall into."""
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(1.0, "prefilled", 0, 0, tokens=1),
            Event(2.0, "preempt", 0, 1, tokens=1),
            Event(2.0 + 3e-10, "transfer", 0, 1, tokens=8, start_s=1.0),
            Event(3.0, "run", None, 1, "decode", 0, 1, 2.0, 1, 3.0),
            Event(4.0, "prefilled", 0, 0, tokens=2),
            Event(4.0, "finish", 0, 0, tokens=2),
        ]
    )
    assert token_times(run, 0).tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [(("pause", "resume"), 3), (("resume", "pause"), 1), (("pause", "resume", "preempt"), 1)],
)
def test_changes_of_one_moment_count_in_the_order_of_their_rows(
    make_run: MakeRun, changes: tuple[str, ...], tokens: int
) -> None:
    run = make_run(
        [
            Event(0.0, "arrive", 0, tokens=8),
            Event(1.0, "prefilled", 0, 0, tokens=1),
            *(Event(1.0, kind, 0, 0, tokens=1) for kind in changes),
            Event(3.0, "run", None, 0, "mixed", 0, 1, 1.0, 2, 2.0, 1.0, 0.0),
        ]
    )
    assert len(token_times(run, 0)) == tokens


def test_rounding_of_a_boundary_does_not_lose_a_token(make_run: MakeRun) -> None:
    end = 100_000.0 + 0.1 + 0.2
    run = make_run(
        [
            Event(100_000.0, "arrive", 0, tokens=8),
            Event(100_000.1, "prefilled", 0, 0, tokens=1),
            Event(end, "run", None, 0, "mixed", 0, 1, 100_000.1 - 1e-10, 1, end),
            Event(end - 1e-10, "finish", 0, 0, tokens=2),
        ]
    )
    assert len(token_times(run, 0)) == 2


def test_contradicting_rows_are_found(make_run: MakeRun, two_requests: list[Event]) -> None:
    wrong = [e._replace(tokens=9) if (e.kind, e.request) == ("finish", 0) else e for e in two_requests]
    run = make_run(wrong)
    with pytest.raises(EventLogError, match="request 0 finished with 9 tokens, its run rows give 6"):
        check(run, rebuild(run))


@pytest.mark.parametrize("seed", range(20))
def test_random_runs_agree_with_a_plain_reading_of_the_rule(make_run: MakeRun, seed: int) -> None:
    events = _random_events(random.Random(seed))
    run = make_run(events)
    tokens = rebuild(run)
    requests = sorted({event.request for event in events if event.request is not None})
    expected = {request: _plain_times(events, request) for request in requests}
    gaps = np.concatenate([np.diff(times) for times in expected.values()])
    for request, times in expected.items():
        np.testing.assert_allclose(tokens.times_s(request), times, rtol=1e-12)
    np.testing.assert_allclose(tokens.gaps().expand(), np.sort(gaps), rtol=1e-9)
    assert tokens.counts(len(requests)).tolist() == [len(expected[request]) for request in requests]
    times_s, counts = tokens.emissions()
    assert sorted(np.repeat(times_s, counts)) == pytest.approx(sorted(np.concatenate(list(expected.values()))))


def _random_events(rng: random.Random) -> list[Event]:
    """Two instances with back-to-back runs; requests join, pause, move and leave at iteration boundaries."""
    boundaries: dict[int, list[float]] = {}
    events: list[Event] = []
    for instance in (0, 1):
        now = rng.random()
        ends: list[float] = []
        for _ in range(12):
            count, growth = rng.randint(1, 6), rng.uniform(0, 0.1)
            first, step = rng.uniform(0.1, 1), rng.uniform(0.1, 1)
            run_ends = [now + first + j * step + growth * j * (j - 1) / 2 for j in range(count)]
            batch = rng.choice([0, 1, 3])
            events.append(
                Event(run_ends[-1], "run", None, instance, "mixed", 0, batch, now, count, run_ends[0], step, growth)
            )
            now, ends = run_ends[-1], [*ends, *run_ends]
            now += rng.choice([0.0, 0.3])
        boundaries[instance] = ends
    for request in range(15):
        events += _random_life(rng, request, boundaries)
    return sorted(events, key=lambda event: event.time_s)


def _random_life(rng: random.Random, request: int, boundaries: dict[int, list[float]]) -> list[Event]:
    instance = rng.randrange(2)
    times = sorted(rng.sample(boundaries[instance], 5))
    life = [Event(0.0, "arrive", request, tokens=4), Event(times[0], "prefilled", request, instance, tokens=1)]
    if rng.random() < 0.5:
        other = 1 - instance
        arrived_s = times[1] + rng.random()
        life.append(Event(arrived_s, "transfer", request, other, tokens=4, start_s=times[1]))
        later = [time for time in boundaries[other] if time > arrived_s]
        return [*life, Event(rng.choice(later), "finish", request, other, tokens=0)] if later else life
    life += [Event(times[1], "pause", request, instance), Event(times[2], "resume", request, instance)]
    return [*life, Event(times[3], rng.choice(["preempt", "finish"]), request, instance, tokens=0)]


def _plain_times(events: list[Event], request: int) -> list[float]:
    """The rule of ``reference_impl/events.py``, read row by row."""
    mine = [event for event in events if event.request == request]
    times = [event.time_s for event in mine if event.kind == "prefilled"]
    for opening, closing in zip(mine, [*mine[1:], None], strict=True):
        if opening.kind not in ("prefilled", "transfer", "resume"):
            continue
        if opening.kind == "prefilled" and closing is not None and closing.kind == "transfer":
            continue
        until = np.inf if closing is None else closing.start_s if closing.kind == "transfer" else closing.time_s
        assert until is not None
        for run in (e for e in events if e.kind == "run" and e.instance == opening.instance and e.batch):
            assert run.start_s is not None
            assert run.iterations is not None
            assert run.first_end_s is not None
            assert run.step_s is not None
            assert run.growth_s is not None
            begin = run.start_s
            for j in range(run.iterations):
                end = run.first_end_s + j * run.step_s + run.growth_s * j * (j - 1) / 2
                if begin >= opening.time_s - 1e-9 and end <= until + 1e-9:
                    times.append(end)
                begin = end
    return sorted(times)
