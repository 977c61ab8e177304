"""KV blocks and the prefix index, against a model that only counts."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from reference_impl.core.blocks import BlockPool
from reference_impl.core.prefix import Node, PrefixIndex

TOTAL = 24
Held = tuple[list[Node], list[int], list[int]]
"""Cached path, named blocks, number of blocks without a name."""


class PoolMachine(RuleBasedStateMachine):
    """Sequences come, share prefixes, grow and go; every block is always exactly one of free, cached, private."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex()
        self.pool = BlockPool(TOTAL, self.index)
        self.live: list[Held] = []

    @rule(target=held, ids=st.lists(st.integers(0, 3), max_size=4), own=st.integers(0, 6))
    def admit(self, ids: list[int], own: int) -> object:
        """Admit a sequence: pin its prefix, take its own blocks, or change nothing."""
        chained = [sum((d + 1) * 5**i for i, d in enumerate(ids[: n + 1])) for n in range(len(ids))]
        path = self.index.match(chained, len(chained))
        before = (self.pool.available, len(self.index.nodes))
        self.index.acquire(path)
        wanted = own + len(chained) - len(path)
        if not self.pool.reserve(wanted):
            self.index.release(path)
            assert (self.pool.available, len(self.index.nodes)) == before
            return multiple()
        for prefix_id in chained[len(path) :]:
            path.append(self.index.insert(prefix_id, path[-1] if path else None, self.pool.name(1)))
        self.live.append((path, self.pool.name(own // 2), [own - own // 2]))
        return self.live[-1]

    @rule(sequence=held)
    def grow(self, sequence: Held) -> None:
        """One more block for a running sequence."""
        room = self.pool.available
        reserved = self.pool.reserve(1)
        assert reserved == (room > 0)
        sequence[2][0] += reserved

    @rule(sequence=held)
    def name(self, sequence: Held) -> None:
        """An engine asks for the ids of everything that a sequence holds."""
        sequence[1].extend(self.pool.name(sequence[2][0]))
        sequence[2][0] = 0

    @rule(sequence=consumes(held))
    def finish(self, sequence: Held) -> None:
        """A sequence ends: its blocks are free, its prefix stays cached."""
        self.live = [other for other in self.live if other is not sequence]
        self.pool.release(sequence[1], sequence[2][0])
        self.index.release(sequence[0])

    @invariant()
    def nothing_is_lost_or_shared(self) -> None:
        """Blocks, references and totals agree."""
        unnamed = sum(count for _, _, [count] in self.live)
        self.pool.check_integrity([block for _, named, _ in self.live for block in named], unnamed)
        pinned = {id(node) for path, _, _ in self.live for node in path}
        needed = len(pinned) + sum(len(named) for _, named, _ in self.live) + unnamed
        assert self.pool.used == needed
        assert self.pool.available == TOTAL - needed


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40)


def take(pool: BlockPool, count: int) -> list[int]:
    assert pool.reserve(count)
    return pool.name(count)


def test_reserving_more_than_there_is_changes_nothing() -> None:
    pool = BlockPool(4, PrefixIndex())
    assert not pool.reserve(5)
    assert pool.available == 4
    assert sorted(take(pool, 4)) == [0, 1, 2, 3]


def test_naming_more_than_is_reserved_is_refused() -> None:
    pool = BlockPool(4, PrefixIndex())
    assert pool.reserve(1)
    with pytest.raises(AssertionError, match="2 blocks to name, 1 are reserved"):
        pool.name(2)


def test_least_recently_used_leaf_is_evicted_first_and_parents_last() -> None:
    index = PrefixIndex()
    pool = BlockPool(4, index)
    blocks = take(pool, 4)
    root = index.insert(1, None, [blocks[0]])
    old = index.insert(2, root, [blocks[1]])
    index.acquire([root])
    young = index.insert(3, root, [blocks[2]])
    index.release([root, old])
    index.release([root, young])
    pool.release([blocks[3]], 0)
    assert pool.available == 4
    take(pool, 2)
    assert set(index.nodes) == {1, 3}
    take(pool, 1)
    assert set(index.nodes) == {1}
    take(pool, 1)
    assert not index.nodes


def test_a_prefix_that_is_used_for_ever_costs_no_memory() -> None:
    index = PrefixIndex()
    pool = BlockPool(2, index)
    path = [index.insert(1, None, take(pool, 1))]
    for _ in range(5000):
        index.release(path)
        index.acquire(path)
    index.release(path)
    assert len(index._leaves) < 1100
    index.check_integrity()
    assert len(take(pool, 2)) == 2


def test_referenced_prefix_is_never_evicted() -> None:
    index = PrefixIndex()
    pool = BlockPool(3, index)
    path = [index.insert(7, None, take(pool, 2))]
    assert not pool.reserve(2)
    index.release(path)
    assert len(take(pool, 2)) == 2


def test_same_id_below_another_parent_is_no_hit() -> None:
    index = PrefixIndex()
    first = index.insert(1, None, [0])
    index.insert(2, first, [1])
    assert [node.prefix_id for node in index.match([1, 2], 2)] == [1, 2]
    assert index.match([2], 1) == []


@pytest.mark.parametrize("damage", ["double", "lost"])
def test_integrity_check_sees_a_block_that_is_held_twice_or_lost(damage: str) -> None:
    pool = BlockPool(3, PrefixIndex())
    blocks = take(pool, 2)
    private = [*blocks, blocks[0]] if damage == "double" else blocks[:1]
    with pytest.raises(AssertionError, match="blocks accounted for"):
        pool.check_integrity(private, 0)
