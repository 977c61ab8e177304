"""Which prompt prefixes an instance holds KV for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush


class Node:
    """One cached block of a prompt: ``blocks`` hold the KV of the tokens that its id stands for."""

    __slots__ = ("blocks", "children", "last_used", "parent", "prefix_id", "references")

    def __init__(self, prefix_id: int, parent: Node | None, blocks: list[int]) -> None:
        self.prefix_id = prefix_id
        self.parent = parent
        self.blocks = blocks
        self.children = 0
        self.references = 0
        self.last_used = 0


class PrefixIndex:
    """Radix index over chained prefix ids with LRU eviction of unreferenced leaves.

    Ids are chained (equal ids mean an equal prefix up to and including that block), so one dictionary is the whole
    tree; each node knows its parent.  A sequence references every node of its path; nodes without a reference may be
    evicted, leaves first, least recently used first.  ``evictable_blocks`` is what eviction could free.
    """

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.evictable_blocks = 0
        self.version = 0
        """Changes whenever a node appears or goes: a match found at another version must be looked up again."""
        self._clock = 0
        self._leaves: list[tuple[int, int, Node]] = []

    def match(self, prefix_ids: Sequence[int], limit: int) -> list[Node]:
        """The longest cached path along the first ``limit`` ids. Changes nothing."""
        path: list[Node] = []
        parent: Node | None = None
        nodes = self.nodes
        for prefix_id in prefix_ids[:limit]:
            node = nodes.get(prefix_id)
            if node is None or node.parent is not parent:
                break
            path.append(node)
            parent = node
        return path

    def acquire(self, path: Sequence[Node]) -> None:
        """Reference every node of a path."""
        for node in path:
            if not node.references:
                self.evictable_blocks -= len(node.blocks)
            node.references += 1

    def release(self, path: Sequence[Node]) -> None:
        """Drop one reference on every node of a path; the path counts as used now."""
        if not path:
            return
        self._clock += 1
        for node in path:
            node.references -= 1
            if not node.references:
                self.evictable_blocks += len(node.blocks)
        last = path[-1]
        last.last_used = self._clock
        if not last.references and not last.children:
            heappush(self._leaves, (last.last_used, last.prefix_id, last))
            if len(self._leaves) > 4 * len(self.nodes) + 1024:
                self._drop_old_notes()

    def insert(self, prefix_id: int, parent: Node | None, blocks: list[int]) -> Node:
        """Add a block below ``parent``, referenced once by its maker. The id must not be present."""
        node = Node(prefix_id, parent, blocks)
        node.references = 1
        self.nodes[prefix_id] = node
        if parent is not None:
            parent.children += 1
        self.version += 1
        return node

    def evict(self, count: int) -> list[int]:
        """Give up the least recently used leaves until ``count`` blocks are free; at most ``evictable_blocks``."""
        freed: list[int] = []
        while len(freed) < count:
            last_used, _, node = heappop(self._leaves)
            if self._is_leaf_since(last_used, node):
                freed += self._remove(node)
        return freed

    def _drop_old_notes(self) -> None:
        """Notes go out of date when a leaf is used again; without evictions nobody would ever clear them away."""
        notes = [note for note in self._leaves if self._is_leaf_since(*note[::2])]
        heapify(notes)
        self._leaves = notes

    def _is_leaf_since(self, last_used: int, node: Node) -> bool:
        """Whether a note about an evictable leaf still holds: it was not used, did not grow a child, and is there."""
        idle = not node.references and not node.children and node.last_used == last_used
        return idle and self.nodes.get(node.prefix_id) is node

    def _remove(self, node: Node) -> list[int]:
        del self.nodes[node.prefix_id]
        self.version += 1
        self.evictable_blocks -= len(node.blocks)
        parent = node.parent
        if parent is not None:
            parent.children -= 1
            parent.last_used = max(parent.last_used, node.last_used)
            if not parent.children and not parent.references:
                heappush(self._leaves, (parent.last_used, parent.prefix_id, parent))
        return node.blocks

    def blocks(self) -> Iterator[int]:
        """Every KV block that the index owns."""
        for node in self.nodes.values():
            yield from node.blocks

    def check_integrity(self) -> None:
        """Raise AssertionError unless references, children, parents and the eviction total agree."""
        children: dict[int, int] = {}
        for node in self.nodes.values():
            if node.parent is not None:
                assert self.nodes.get(node.parent.prefix_id) is node.parent, f"node {node.prefix_id} lost its parent"
                assert node.parent.references >= node.references, f"node {node.prefix_id} outlives its parent"
                children[node.parent.prefix_id] = children.get(node.parent.prefix_id, 0) + 1
        evictable = 0
        noted = {id(node) for last_used, _, node in self._leaves if node.last_used == last_used}
        for node in self.nodes.values():
            assert node.references >= 0, f"node {node.prefix_id} has {node.references} references"
            assert node.children == children.get(node.prefix_id, 0), f"node {node.prefix_id} miscounts its children"
            if not node.references:
                evictable += len(node.blocks)
                assert node.children or id(node) in noted, f"leaf {node.prefix_id} can never be evicted"
        assert evictable == self.evictable_blocks, f"{self.evictable_blocks} evictable blocks noted, {evictable} found"
