"""The engine without an event loop: exact tokens, ends, refusals, cancellation, the event log."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from policies.api import BatchPlan
from reference_impl.engine.api import SampledToken, WorkerDiedError
from reference_impl.engine.engine import EngineSettings
from reference_impl.engine.testing import fake_request, fake_tokens

Make = Callable[..., Any]
AHEAD = EngineSettings(plan_ahead=True, vocab_tokens=1000)
PLAIN = EngineSettings(vocab_tokens=1000)
BATCHES = ("prefill_first", "chunked_prefill:chunk_tokens=16", "unified_budget:token_budget=32", "decode_first")


@pytest.mark.parametrize("settings", [PLAIN, AHEAD], ids=["plain", "ahead"])
@pytest.mark.parametrize("role", ["colocated", "semi_pd"])
@pytest.mark.parametrize("batch", BATCHES)
def test_tokens_are_exact(hand: Make, prompts: Make, settings: EngineSettings, role: str, batch: str) -> None:
    engine = hand(role, batch, settings=settings)
    drawn = prompts(1, 24)
    engine.submit(*(fake_request(i, prompt, 3 + i) for i, prompt in enumerate(drawn)))
    engine.run()
    assert engine.tokens == {i: list(fake_tokens(prompt, 3 + i)) for i, prompt in enumerate(drawn)}
    assert set(engine.ends.values()) == {"length"}
    engine.check_empty()


@pytest.mark.parametrize("settings", [PLAIN, AHEAD], ids=["plain", "ahead"])
def test_tokens_are_exact_when_sequences_are_preempted(hand: Make, prompts: Make, settings: EngineSettings) -> None:
    engine = hand(settings=settings, kv_blocks=30)
    drawn = prompts(2, 12, 30)
    engine.submit(*(fake_request(i, prompt, 40) for i, prompt in enumerate(drawn)))
    engine.run()
    assert engine.engine.instance.preemptions > 0
    assert engine.tokens == {i: list(fake_tokens(prompt, 40)) for i, prompt in enumerate(drawn)}
    engine.check_empty()


def test_a_request_goes_on_after_what_was_generated_elsewhere(hand: Make) -> None:
    engine = hand()
    expected = fake_tokens([5, 6, 7], 10)
    engine.submit(fake_request(0, [5, 6, 7], 10, generated=expected[:4]))
    engine.run()
    assert engine.tokens[0] == list(expected[4:])
    finish = engine.engine.instance.log.finish[0]
    assert finish[-1] == 10


@pytest.mark.parametrize("settings", [PLAIN, AHEAD], ids=["plain", "ahead"])
def test_an_end_of_sequence_ends_a_request_unless_it_is_ignored(hand: Make, settings: EngineSettings) -> None:
    tokens = fake_tokens([1, 2, 3], 12)
    engine = hand(settings=replace(settings, eos_token_ids=frozenset({tokens[4]})))
    engine.submit(fake_request(0, [1, 2, 3], 12), fake_request(1, [1, 2, 3], 12, ignore_eos=True))
    engine.run()
    assert engine.tokens == {0: list(tokens[:5]), 1: list(tokens)}
    assert engine.ends == {0: "stop", 1: "length"}
    engine.check_empty()


@pytest.mark.parametrize("settings", [PLAIN, AHEAD], ids=["plain", "ahead"])
def test_a_stop_token_ends_a_request_even_where_ends_of_sequence_are_ignored(
    hand: Make, settings: EngineSettings
) -> None:
    tokens = fake_tokens([9], 8)
    engine = hand(settings=settings)
    engine.submit(fake_request(0, [9], 8, stop_token_ids=(tokens[0],), ignore_eos=True))
    engine.submit(fake_request(1, [9], 8, stop_token_ids=(tokens[6],)))
    engine.run()
    assert engine.tokens == {0: [tokens[0]], 1: list(tokens[:7])}
    assert set(engine.ends.values()) == {"stop"}
    engine.check_empty()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": []}, r"its prompt has 0 tokens"),
        ({"prompt": [1, 1000]}, r"it has token 1000; allowed: 0 to 999"),
        ({"prompt": [-1]}, r"it has token -1"),
        ({"prompt": [1] * 250}, r"its 258 tokens .* exceed the 257 that a colocated instance holds"),
        ({"prompt": [1], "generated": [2] * 8}, r"max_tokens is 8 with 8 tokens generated before"),
    ],
)
def test_a_request_that_can_never_run_is_refused_with_a_reason(hand: Make, fields: Any, reason: str) -> None:
    engine = hand()
    engine.submit(fake_request(0, **fields))
    (failure,) = engine.failed
    assert failure.request_id == 0
    assert not failure.retry
    assert re.search(reason, failure.reason)
    engine.check_empty()


def test_a_decode_instance_that_a_request_is_submitted_to_leaves_it_to_others(hand: Make) -> None:
    engine = hand("decode")
    engine.submit(fake_request(0, [1]))
    (failure,) = engine.failed
    assert failure.retry
    assert "submit it to one that prefills" in failure.reason


def test_a_prefill_instance_takes_what_it_can_hold_up_to_the_next_token(hand: Make) -> None:
    engine = hand("prefill")
    engine.submit(fake_request(0, [1] * 256, 500), fake_request(1, [1] * 257, 500))
    assert [failure.request_id for failure in engine.failed] == [1]


def test_a_request_that_is_here_is_not_taken_twice(hand: Make) -> None:
    engine = hand()
    engine.submit(fake_request(0, [1], 5), fake_request(0, [1], 5))
    engine.move()
    engine.submit(fake_request(0, [1], 5))
    engine.run()
    assert engine.tokens == {0: list(fake_tokens([1], 5))}
    assert engine.failed == []


@pytest.mark.parametrize("settings", [PLAIN, AHEAD], ids=["plain", "ahead"])
@pytest.mark.parametrize("moves", range(6))
def test_a_cancelled_request_is_gone_in_whatever_state(hand: Make, settings: EngineSettings, moves: int) -> None:
    engine = hand(batch="chunked_prefill:chunk_tokens=8", settings=settings)
    engine.submit(fake_request(0, [1] * 20, 5), fake_request(1, [2] * 20, 5))
    for _ in range(moves):
        engine.move()
    engine.engine.pump()
    assert engine.engine.cancel(0, "its client left")
    assert not engine.engine.cancel(0, "its client left")
    before = list(engine.tokens.get(0, []))
    engine.run()
    assert engine.tokens.get(0, []) == before
    assert engine.tokens[1] == list(fake_tokens([2] * 20, 5))
    assert [row[1:] for row in engine.engine.instance.log.reject] == [(0, "its client left")]
    engine.check_empty()


@pytest.mark.parametrize("settings", [PLAIN, AHEAD], ids=["plain", "ahead"])
def test_a_request_can_be_ended_as_it_stands(hand: Make, settings: EngineSettings) -> None:
    engine = hand(settings=settings)
    engine.submit(fake_request(0, [1], 50))
    for _ in range(5):
        engine.move()
    engine.engine.pump()
    assert engine.engine.end(0)
    engine.run()
    (finish,) = engine.engine.instance.log.finish
    assert finish[-1] == len(engine.tokens[0]) == 5
    engine.check_empty()


@pytest.mark.parametrize("settings", [PLAIN, AHEAD], ids=["plain", "ahead"])
def test_a_cancelled_request_can_come_back_while_its_last_iteration_is_under_way(
    hand: Make, settings: EngineSettings
) -> None:
    engine = hand(settings=settings)
    engine.submit(fake_request(0, [1, 2], 9))
    for _ in range(3):
        engine.move()
    engine.engine.pump()
    assert engine.engine.cancel(0, None)
    engine.submit(fake_request(0, [1, 2], 9, generated=engine.tokens[0]))
    assert not engine.engine.lives
    engine.run()
    assert engine.tokens == {0: list(fake_tokens([1, 2], 9))}
    engine.check_empty()


def test_a_held_request_can_be_cancelled(hand: Make) -> None:
    engine = hand()
    engine.submit(fake_request(0, [1, 2], 9))
    engine.engine.pump()
    engine.engine.cancel(0, None)
    engine.submit(fake_request(0, [1, 2], 9))
    assert engine.engine.cancel(0, None)
    engine.run()
    assert engine.tokens == {}
    engine.check_empty()


def test_a_policy_that_raises_fails_its_requests_and_nothing_runs_any_more(hand: Make) -> None:
    engine = hand()
    engine.submit(fake_request(0, [1], 50), fake_request(1, [1], 50))
    engine.move()
    engine.engine.instance.lanes[0].batch.plan = lambda lane: BatchPlan(preempt=(77,))
    engine.move()
    assert {failure.request_id for failure in engine.failed} == {0, 1}
    assert "preemption of running requests" in engine.engine.failure
    assert all(failure.retry for failure in engine.failed), "no request is to blame for a policy"
    assert engine.engine.instance.view(0.0).state == "failed"
    engine.submit(fake_request(2, [1], 50))
    assert engine.failed[-1].request_id == 2
    assert engine.failed[-1].retry
    assert not engine.move()


def test_outcomes_that_came_before_are_ignored_and_others_out_of_step_are_an_error(hand: Make) -> None:
    engine = hand()
    engine.submit(fake_request(0, [1], 5))
    engine.engine.pump()
    (loop,) = engine.engine.loops
    flight = loop.flights[0]
    outcome = loop.executor.collect()
    again = [outcome, outcome._replace(ordinal=0), outcome._replace(ordinal=2)]
    loop.executor.collect = lambda: again.pop()
    with pytest.raises(WorkerDiedError, match="answered iteration 2 "):
        engine.engine.collect(0)
    engine.engine.collect(0)
    assert loop.flights[0] is flight
    engine.engine.collect(0)
    assert not loop.flights
    loop.executor.collect = lambda: outcome._replace(ordinal=2, tokens=(SampledToken(1, 1),))
    engine.engine.pump()
    with pytest.raises(WorkerDiedError, match="it has to be replaced"):
        engine.engine.collect(0)


@pytest.mark.parametrize("settings", [PLAIN, AHEAD], ids=["plain", "ahead"])
@pytest.mark.parametrize("role", ["colocated", "semi_pd"])
def test_the_event_log_gives_every_request_its_tokens(
    hand: Make, prompts: Make, tmp_path: Path, settings: EngineSettings, role: str
) -> None:
    from reference_impl.metrics import read, token_times
    from reference_impl.metrics.tokens import check, rebuild

    engine = hand(role, "chunked_prefill:chunk_tokens=16", settings=settings, kv_blocks=40)
    log = engine.engine.instance.log
    for i, prompt in enumerate(prompts(3, 16)):
        log.arrive.append((0.0, i, len(prompt)))
        log.dispatch.append((0.0, i, 0, None))
        engine.submit(fake_request(i, prompt, 20))
        engine.move()
    engine.run()
    path = tmp_path / "events.parquet"
    metadata = {b"semiflow": b'{"schema_version": 1, "instances": []}'}
    pq.write_table(log.table().replace_schema_metadata(metadata), path)
    run = read(path)
    check(run, rebuild(run))
    assert [len(token_times(run, i)) for i in range(16)] == [20] * 16
