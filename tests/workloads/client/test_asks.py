"""Requests are made ready before they are due, as far as memory allows."""

from __future__ import annotations

import json
from collections.abc import Iterator

from workloads.client.ask import Ask, Form
from workloads.client.asks import IdPrompts, Labels, Prepared, asks, warmup_asks
from workloads.client.prompts import Vocabulary
from workloads.client.turns import Due
from workloads.trace import Trace


def test_bodies_beyond_the_budget_are_made_on_the_way() -> None:
    made: list[int] = []

    def source() -> Iterator[Ask]:
        for row in range(10):
            made.append(row)
            yield Ask(row, 0.0, 1, 1, b"x" * 100, {})

    ready = Prepared(source(), budget_bytes=250)
    told: list[int] = []
    ready.fill(told.append)
    assert (made, told) == ([0, 1, 2], [1, 2, 3])
    assert [ask.row for ask in ready] == list(range(10))


def test_asks_follow_the_rows(small_trace: Trace) -> None:
    prompts = IdPrompts(small_trace, Vocabulary(0, 100), 0)
    labels = Labels(slo_class=None)
    due = [Due(float(small_trace.arrival_s[row]), row) for row in (0, 2, 5)]
    found = list(asks(small_trace, due, Form("m"), prompts, labels))
    assert [(ask.row, ask.at_s, ask.prompt_tokens, ask.output_tokens) for ask in found] == [
        (0, 0.0, 8, 3),
        (2, 1.0, 9, 7),
        (5, 10.0, 12, 4),
    ]
    assert [len(json.loads(ask.body)["prompt"]) for ask in found] == [8, 9, 12]
    assert found[0].headers == {"X-Semiflow-Tenant": "x", "X-Semiflow-Session": "a"}


def test_warmup_lengths_are_the_traces_first_ones(small_trace: Trace) -> None:
    prompts = IdPrompts(small_trace, Vocabulary(0, 100), 0)
    found = list(warmup_asks(small_trace, 8, Form("m"), prompts))
    assert [ask.prompt_tokens for ask in found] == [8, 5, 9, 1, 4, 12, 8, 5]
    assert {ask.at_s for ask in found} == {0.0}
    assert found[0].body != found[6].body
