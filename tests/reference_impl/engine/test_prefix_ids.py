"""Ids of prompt blocks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_impl.engine.prefix_ids import prefix_ids

TOKENS = st.lists(st.integers(0, 3), max_size=20)


@given(TOKENS, TOKENS, st.integers(1, 4))
def test_ids_are_equal_exactly_as_far_as_the_prompts_are(one: list[int], other: list[int], block: int) -> None:
    pairs = list(zip(prefix_ids(one, block), prefix_ids(other, block), strict=False))
    for place, (mine, theirs) in enumerate(pairs, start=1):
        assert (mine == theirs) == (one[: place * block] == other[: place * block])


def test_only_full_blocks_have_ids_and_they_are_positive_63_bit_numbers() -> None:
    ids = prefix_ids(range(35), 16)
    assert len(ids) == 2
    assert all(0 <= prefix_id < 2**63 for prefix_id in ids)


def test_ids_are_the_same_in_every_process() -> None:
    code = "from reference_impl.engine.prefix_ids import prefix_ids; print(*prefix_ids([1, 2, 3], 1))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [str(prefix_id) for prefix_id in prefix_ids((1, 2, 3), 1)]


def test_a_block_has_at_least_one_token() -> None:
    with pytest.raises(ValueError, match="block_tokens 0 is not allowed"):
        prefix_ids([1], 0)
