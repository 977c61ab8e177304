"""Prompts have the trace's prefix structure, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.client.asks import IdPrompts
from workloads.client.errors import ReplayError
from workloads.client.prompts import PromptMaker, Vocabulary
from workloads.trace import Trace

VOCABULARY = Vocabulary(100, 5_000, frozenset({101, 4_999}))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Prompts over a random tree of blocks; ids are spread over 63 bits, the last block may be cut."""
    block = draw(st.sampled_from([4, 5, 16]))
    nodes = draw(st.integers(1, 12))
    parents = [draw(st.none() | st.integers(0, node - 1)) if node else None for node in range(nodes)]
    requests: list[tuple[int, ...]] = []
    prompts: list[int] = []
    for _ in range(draw(st.integers(1, 6))):
        path: list[int] = []
        at: int | None = draw(st.integers(0, nodes - 1))
        while at is not None:
            path.append(at * 2**58 + 11)
            at = parents[at]
        requests.append(tuple(reversed(path)))
        prompts.append(draw(st.integers((len(path) - 1) * block + 1, (len(path) + 2) * block)))
    return make_trace(prompts, tuple(requests), block)


def make_trace(prompts: list[int], ids: tuple[tuple[int, ...], ...] | None = None, block: int | None = None) -> Trace:
    ones = np.ones(len(prompts), np.int32)
    lengths = np.array(prompts, np.int32)
    return Trace("t", np.zeros(len(prompts)), lengths, ones, prefix_ids=ids, prefix_block_tokens=block)


def prompts_of(trace: Trace, seed: int = 3) -> list[list[int]]:
    prompts = IdPrompts(trace, VOCABULARY, seed)
    return [prompts.prompt(row) for row in range(len(trace))]


@given(traces())
def test_equal_ids_are_equal_tokens_and_nothing_else_is(trace: Trace) -> None:
    assert trace.prefix_ids is not None
    assert trace.prefix_block_tokens is not None
    block, prompts = trace.prefix_block_tokens, prompts_of(trace)
    for one in range(len(trace)):
        for other in range(one):
            ids = list(zip(trace.prefix_ids[one], trace.prefix_ids[other], strict=False))
            shared = next((place for place, (left, right) in enumerate(ids) if left != right), len(ids)) * block
            both = min(len(prompts[one]), len(prompts[other]))
            assert prompts[one][: min(shared, both)] == prompts[other][: min(shared, both)]
            rest_one, rest_other = (prompts[row][shared : shared + block] for row in (one, other))
            assert len(rest_one) < 4 or len(rest_other) < 4 or rest_one != rest_other


@given(traces())
def test_lengths_are_exact_and_tokens_ordinary(trace: Trace) -> None:
    prompts = prompts_of(trace)
    assert [len(prompt) for prompt in prompts] == trace.prompt_tokens.tolist()
    assert {token for prompt in prompts for token in prompt} <= set(range(100, 5_000)) - {101, 4_999}


def test_without_ids_every_prompt_is_its_own() -> None:
    trace = make_trace([8] * 50)
    assert len({tuple(prompt) for prompt in prompts_of(trace)}) == 50


def test_the_seed_decides_the_tokens() -> None:
    trace = make_trace([64, 64], ((7,), (7,)), 32)
    assert prompts_of(trace, 1) == prompts_of(trace, 1)
    assert prompts_of(trace, 1)[0][:4] != prompts_of(trace, 2)[0][:4]


def test_a_warmup_prompt_shares_nothing_with_the_trace() -> None:
    trace = make_trace([64, 64], ((0,), (1,)), 64)
    prompts = IdPrompts(trace, VOCABULARY, 0)
    assert all(prompts.warmup(number, 8) != prompts.prompt(number)[:8] for number in range(2))
    assert prompts.warmup(0, 8) != prompts.warmup(1, 8)


def test_tokens_are_spread_evenly() -> None:
    trace = make_trace([160_000])
    counts = np.bincount(PromptMaker(trace, 16, 0).prompt(0), minlength=16)
    # 160,000 draws over 16 tokens: chi-square with 15 degrees of freedom exceeds 50 with probability 1e-5
    assert float((((counts - 10_000) ** 2) / 10_000).sum()) < 50


def test_a_vocabulary_that_is_too_small_is_refused() -> None:
    with pytest.raises(ReplayError, match=r"vocabulary of 8 token ids \(0 to 10, less 2 special ones\)"):
        Vocabulary(0, 10, frozenset({0, 1})).ids()
