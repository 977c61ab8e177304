"""The paged KV cache of one instance: who holds which block."""

from __future__ import annotations

from collections.abc import Iterable

from reference_impl.core.prefix import PrefixIndex


class BlockPool:
    """Hands out KV blocks; shared by all lanes of an instance.

    A block is free, or private to one sequence, or owned by the prefix index and shared by the sequences that
    reference its node (the reference count is the node's).  Blocks cached without a reference count as available:
    :meth:`reserve` evicts them when it must.  Query, eviction and reservation are one call, so two lanes cannot both
    count on the same block (the lost update of semi-PD's Fig. 7).

    Reserving counts; :meth:`name` gives reserved blocks their ids.  An engine names what its block tables need before
    an iteration; a host that never looks at ids does not pay for them.
    """

    __slots__ = ("_free", "_unnamed", "index", "total")

    def __init__(self, total: int, index: PrefixIndex) -> None:
        self.total = total
        self.index = index
        self._free = list(range(total - 1, -1, -1))
        self._unnamed = 0

    @property
    def available(self) -> int:
        """Blocks that :meth:`reserve` could hand out now."""
        return len(self._free) - self._unnamed + self.index.evictable_blocks

    @property
    def used(self) -> int:
        """Blocks that some sequence needs (a cached prefix without a reference is not counted)."""
        return self.total - len(self._free) + self._unnamed - self.index.evictable_blocks

    def reserve(self, count: int) -> bool:
        """Take ``count`` blocks at once; False, and no change at all, where there are not so many."""
        missing = self._unnamed + count - len(self._free)
        if missing > 0:
            if missing > self.index.evictable_blocks:
                return False
            self._free += self.index.evict(missing)
        self._unnamed += count
        return True

    def name(self, count: int) -> list[int]:
        """The ids of ``count`` blocks that were reserved."""
        assert count <= self._unnamed, f"{count} blocks to name, {self._unnamed} are reserved"
        if count <= 0:
            return []
        self._unnamed -= count
        named = self._free[-count:]
        del self._free[-count:]
        return named

    def release(self, named: list[int], unnamed: int) -> None:
        """Take private blocks back."""
        if named:
            self._free += named
        self._unnamed -= unnamed

    def check_integrity(self, named: Iterable[int], unnamed: int) -> None:
        """Raise AssertionError unless every block is exactly one of free, cached or private."""
        self.index.check_integrity()
        assert unnamed == self._unnamed <= len(self._free), f"{unnamed} blocks lack a name, {self._unnamed} are noted"
        seen = sorted([*self._free, *self.index.blocks(), *named])
        assert seen == list(range(self.total)), f"{len(seen)} blocks accounted for, {self.total} exist, or some twice"
