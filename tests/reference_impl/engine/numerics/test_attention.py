"""Ragged attention over a paged cache against attention written out over whole sequences."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impl.engine.api import ChunkRow, DecodeRow, ForwardBatch
from reference_impl.engine.batch import Arrangement, arrange
from reference_impl.engine.device import groups
from reference_impl.engine.device.pool_views import PoolViews
from reference_impl.engine.device.ragged import gathered
from reference_impl.engine.kv_cache import KvLayout, KvPool

LAYERS = 2


@dataclass
class Case:
    """Sequences of which some tokens are in the pool and the last ``new`` are computed now."""

    block_tokens: int
    kv_heads: int
    group: int
    head_dim: int
    sequences: list[tuple[int, int, bool]]
    """(tokens in the pool, new tokens, decode)"""
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    decodes = draw(st.lists(st.tuples(st.integers(0, 70), st.just(1), st.just(True)), max_size=6))
    chunks = draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 150), st.just(False)), max_size=3))
    chosen = draw(st.permutations([*decodes, *chunks]).filter(bool))
    size, kv_heads = draw(st.sampled_from([1, 3, 8, 16])), draw(st.integers(1, 3))
    group, head_dim = draw(st.integers(1, 3)), draw(st.sampled_from([4, 8]))
    return Case(size, kv_heads, group, head_dim, chosen, draw(st.integers(0, 99)))


class World:
    """A pool with shuffled block tables, and each sequence's keys, values and queries in order."""

    def __init__(self, case: Case) -> None:
        self.case = case
        draw = torch.Generator().manual_seed(case.seed)
        needed = [-(-(old + new) // case.block_tokens) for old, new, _ in case.sequences]
        blocks = sum(needed) + 2
        layout = KvLayout(LAYERS, case.kv_heads, case.head_dim, case.block_tokens, "float32")
        self.pool = KvPool.create(None, layout, blocks)
        self.pool.tensor.normal_(generator=draw)  # what others have left there
        order = torch.randperm(blocks, generator=draw).tolist()
        self.tables = [[order.pop() for _ in range(count)] for count in needed]
        self.keys, self.values = (self._tokens(case.kv_heads, draw) for _ in range(2))
        self.queries = self._tokens(case.kv_heads * case.group, draw)
        for place, (old, _, _) in enumerate(case.sequences):
            for position in range(old):
                self._slot(0, place, position).copy_(self.keys[place][position])
                self._slot(1, place, position).copy_(self.values[place][position])

    def _tokens(self, heads: int, draw: torch.Generator) -> list[torch.Tensor]:
        dim = self.case.head_dim
        return [torch.randn(old + new, heads, dim, generator=draw) for old, new, _ in self.case.sequences]

    def _slot(self, part: int, place: int, position: int) -> torch.Tensor:
        size = self.case.block_tokens
        found: torch.Tensor = self.pool.tensor[1, part, self.tables[place][position // size], position % size]
        return found

    def arrangement(self) -> Arrangement:
        chunks, decodes = [], []
        for place, (old, new, is_decode) in enumerate(self.case.sequences):
            if is_decode:
                decodes.append(DecodeRow(place, 0, old, self.tables[place]))
            else:
                chunks.append(ChunkRow(place, [0] * new, old, self.tables[place], True))
        return arrange(ForwardBatch(0, tuple(chunks), tuple(decodes)), self.case.block_tokens, int)

    def rows(self, arranged: Arrangement) -> list[tuple[int, int]]:
        """(sequence, position) of each row."""
        places = [place for place, (_, new, decode) in enumerate(self.case.sequences) for _ in range(new) if not decode]
        places += [row.request_id for row in arranged.decodes]
        return list(zip(places, arranged.positions, strict=True))

    def attend(self, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """What the engine computes, and what it should."""
        arranged = self.arrangement()
        rows = self.rows(arranged)
        query, key, value = (
            torch.stack([numbers[place][position] for place, position in rows], 1)
            for numbers in (self.queries, self.keys, self.values)
        )
        found = gathered(PoolViews(self.pool), arranged).attend(1, query, key, value, scale)
        dense = [self._dense(place, scale) for place in range(len(self.tables))]
        return found, torch.stack([dense[place][position] for place, position in rows])

    def _dense(self, place: int, scale: float) -> torch.Tensor:
        """[tokens, heads, head_dim] of a whole sequence."""
        keys, values = (of[place].double().repeat_interleave(self.case.group, 1) for of in (self.keys, self.values))
        scores = torch.einsum("qhd,khd->hqk", self.queries[place].double(), keys) * scale
        count = scores.shape[-1]
        scores.masked_fill_(torch.ones(count, count, dtype=torch.bool).triu(1), -torch.inf)
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).float()


@settings(max_examples=40)
@given(cases())
def test_every_row_sees_exactly_the_tokens_before_it(case: Case) -> None:
    found, wanted = World(case).attend(0.3)
    assert torch.allclose(found, wanted, atol=2e-5)


@settings(max_examples=20)
@given(cases())
def test_new_keys_and_values_are_where_the_block_table_says_and_nothing_else_changes(case: Case) -> None:
    world = World(case)
    before = world.pool.tensor.clone()
    world.attend(0.3)
    for place, (old, new, _) in enumerate(case.sequences):
        for position in range(old, old + new):
            size = case.block_tokens
            block, offset = world.tables[place][position // size], position % size
            assert torch.equal(world.pool.tensor[1, 0, block, offset], world.keys[place][position])
            assert torch.equal(world.pool.tensor[1, 1, block, offset], world.values[place][position])
            before[1, :, block, offset] = world.pool.tensor[1, :, block, offset]
    assert torch.equal(world.pool.tensor, before)


@pytest.mark.parametrize(("group_bytes", "waste_bytes"), [(1, 10**9), (10**9, 0), (10**9, 10**9), (3000, 500)])
def test_how_decodes_are_grouped_does_not_matter(
    group_bytes: int, waste_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "GROUP_BYTES", group_bytes)
    monkeypatch.setattr(groups, "WASTE_BYTES", waste_bytes)
    contexts = [5, 5, 90, 33, 0, 64, 17, 17]
    found, wanted = World(Case(8, 2, 2, 8, [(old, 1, True) for old in contexts], 1)).attend(0.3)
    assert torch.allclose(found, wanted, atol=2e-5)


def test_a_prompt_of_several_tiles_is_causal() -> None:
    found, wanted = World(Case(16, 2, 2, 8, [(0, 300, False), (37, 290, False)], 2)).attend(0.3)
    assert torch.allclose(found, wanted, atol=2e-5)


def test_the_outcome_keeps_the_batchs_order_though_decodes_are_sorted() -> None:
    decodes = tuple(DecodeRow(number, number, position, [0, 1, 2]) for number, position in enumerate((20, 3, 11)))
    arranged = arrange(ForwardBatch(0, (ChunkRow(9, [7, 8], 0, [3], True),), decodes), 8, int)
    assert arranged.yields == [9, 0, 1, 2]
    assert [arranged.positions[row] for row in arranged.keep] == [1, 20, 3, 11]
    assert [arranged.tokens[row] for row in arranged.keep] == [8, 0, 1, 2]
    assert arranged.slots == [24, 25, 3, 11, 20]
