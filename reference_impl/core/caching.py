"""An instance's prefix cache: what a waiting prompt finds there, and what a computed prompt leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_impl.core.departure import let_go
from reference_impl.core.sequence import Sequence

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance
    from reference_impl.core.lane import Lane


def blocks_per_prefix_id(prefix_block_tokens: int, block_tokens: int) -> int:
    """KV blocks of one prefix id. Raises ValueError where they are no whole number."""
    if prefix_block_tokens % block_tokens:
        raise ValueError(
            f"the trace's prefix blocks have {prefix_block_tokens} tokens, KV blocks {block_tokens};"
            " allowed: whole KV blocks per prefix block (convert the trace, or choose another KV block size)"
        )
    return prefix_block_tokens // block_tokens


def find_prefix(instance: Instance, sequence: Sequence) -> None:
    """Note the longest cached prefix of a waiting prompt as its ``hit``; at least one token is left to compute."""
    index = instance.index
    if sequence.hit_version != index.version:
        limit = (min(sequence.target_tokens - 1, sequence.request.prompt_tokens)) // instance.prefix_block_tokens
        sequence.hit = index.match(sequence.request.prefix_ids, limit)
        sequence.hit_version = index.version


def share_prompt(instance: Instance, lane: Lane, sequence: Sequence) -> None:
    """Cache the whole prompt blocks of a finished prefill; where another sequence was faster, use its copy."""
    per_id, index, pool = instance.blocks_per_id, instance.index, instance.pool
    ids = sequence.request.prefix_ids
    path = sequence.path
    whole = min(len(ids), sequence.request.prompt_tokens // instance.prefix_block_tokens)
    if len(path) >= whole:
        return
    path = sequence.path = list(path)
    own = sequence.blocks
    own += pool.name((whole - len(path)) * per_id - len(own))
    taken = 0
    for prefix_id in ids[len(path) : whole]:
        parent = path[-1] if path else None
        mine = own[taken : taken + per_id]
        node = index.nodes.get(prefix_id)
        if node is None:
            node = index.insert(prefix_id, parent, mine)
        elif node.parent is parent:
            index.acquire((node,))
            let_go(instance, lane, sequence, mine, 0, [])
        else:
            break  # the same id after another prefix: not a chained id, so it cannot be shared
        path.append(node)
        taken += per_id
    del own[:taken]
    sequence.own_blocks -= taken
