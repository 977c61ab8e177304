"""Block-size conversion: what two requests share must come out the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.errors import TraceError
from workloads.trace import Trace

Prompt = list[int]
PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=40), min_size=1, max_size=8)


def hashed(prompts: list[Prompt], block: int, whole_blocks_only: bool) -> Trace:
    """A trace whose ids are made from real tokens, as a server would hash them."""
    numbers: dict[tuple[int, ...], int] = {}
    ids = []
    for prompt in prompts:
        ends = list(range(block, len(prompt) + 1, block))
        if not whole_blocks_only and len(prompt) % block:
            ends.append(len(prompt))
        # The length tells a partial block from a whole one that begins with the same tokens.
        ids.append(tuple(numbers.setdefault(tuple(prompt[:end]), len(numbers)) for end in ends))
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int32)
    return Trace("t", np.arange(len(prompts), dtype=np.float64), lengths, lengths, tuple(ids), block)


def shared_blocks(trace: Trace) -> list[list[int]]:
    """For each pair of requests, how many leading ids they have in common."""
    assert trace.prefix_ids is not None

    def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
        count = 0
        while count < min(len(one), len(other)) and one[count] == other[count]:
            count += 1
        return count

    return [[common(one, other) for other in trace.prefix_ids] for one in trace.prefix_ids]


@given(PROMPTS, st.booleans())
def test_coarse_ids_are_those_that_hashing_coarse_blocks_gives(prompts: list[Prompt], whole: bool) -> None:
    coarse = hashed(prompts, 2, whole).with_block_tokens(8)
    truth = hashed(prompts, 8, whole)
    assert coarse.prefix_block_tokens == 8
    if whole:  # prompts whose length is a multiple of the small block count as covered to the end
        whole_blocks = [len(prompt) // 8 for prompt in prompts]
        shared = [
            [min(n, a, b) for n, b in zip(row, whole_blocks, strict=True)]
            for row, a in zip(shared_blocks(coarse), whole_blocks, strict=True)
        ]
        assert shared == shared_blocks(truth)
    else:
        assert shared_blocks(coarse) == shared_blocks(truth)
    Trace("again", coarse.arrival_s, coarse.prompt_tokens, coarse.output_tokens, coarse.prefix_ids, 8)


@given(PROMPTS, st.booleans())
def test_refined_ids_share_the_same_tokens(prompts: list[Prompt], whole: bool) -> None:
    trace = hashed(prompts, 8, whole)
    fine = trace.with_block_tokens(2)
    lengths = trace.prompt_tokens.tolist()
    for row, (coarse_shared, fine_shared) in enumerate(zip(shared_blocks(trace), shared_blocks(fine), strict=True)):
        for other, (coarse, finer) in enumerate(zip(coarse_shared, fine_shared, strict=True)):
            limit = min(lengths[row], lengths[other])
            assert min(finer * 2, limit) == min(coarse * 8, limit)
    Trace("again", fine.arrival_s, fine.prompt_tokens, fine.output_tokens, fine.prefix_ids, 2)


@given(PROMPTS)
def test_there_and_back_shares_the_same(prompts: list[Prompt]) -> None:
    trace = hashed(prompts, 8, whole_blocks_only=False)
    assert shared_blocks(trace.with_block_tokens(2).with_block_tokens(8)) == shared_blocks(trace)


def test_the_same_size_changes_nothing_that_is_shared(small_trace: Trace) -> None:
    assert shared_blocks(small_trace.with_block_tokens(4)) == shared_blocks(small_trace)


@pytest.mark.parametrize("size", [3, 6, 0, -4])
def test_a_size_that_is_neither_divisor_nor_multiple_is_refused(small_trace: Trace, size: int) -> None:
    with pytest.raises(TraceError, match=r"allowed: (a divisor or a multiple of 4|integers from 1 on)"):
        small_trace.with_block_tokens(size)


def test_a_trace_without_ids_has_nothing_to_convert() -> None:
    trace = Trace("t", np.array([0.0]), np.array([1]), np.array([1]))
    with pytest.raises(TraceError, match="no prefix ids"):
        trace.with_block_tokens(16)
