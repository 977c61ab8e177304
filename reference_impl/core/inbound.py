"""The receiving side of a hand-over: a prefilled request is promised, gets blocks, and arrives; or it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_impl.core.sequence import Sequence

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance


class Promise:
    """A sequence that another instance prefilled, on its way here."""

    __slots__ = ("blocks", "named", "sequence", "tokens")

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.tokens = sequence.computed_tokens
        """Tokens whose KV comes."""
        self.blocks: int | None = None
        """KV blocks reserved for them; None: not yet."""
        self.named: list[int] = []
        """The ids of the first of them, in order of position."""


def reserve(instance: Instance, promise: Promise) -> bool:
    """Take the blocks of a promise, keeping 1 % free for growth; False: not now."""
    need = -(-promise.tokens // instance.spec.block_tokens)
    pool = instance.pool
    if instance.running >= instance.spec.max_sequences:
        return False
    if instance.running and need > pool.available - pool.total // 100:
        return False
    if not pool.reserve(need):
        return False
    promise.blocks = need
    instance.inbound -= 1
    instance.running += 1
    instance.waiting_tokens -= promise.tokens
    instance.resting_tokens += promise.tokens
    return True


def withdraw(instance: Instance, promise: Promise) -> None:
    """Take a promise back, and the blocks that were reserved for it."""
    if promise.blocks is None:
        instance.inbound -= 1
        instance.waiting_tokens -= promise.tokens
        return
    instance.running -= 1
    instance.resting_tokens -= promise.tokens
    instance.pool.release(promise.named, promise.blocks - len(promise.named))


def arrive(instance: Instance, promise: Promise) -> None:
    """The KV of a promise is here: it is a sequence of this instance now."""
    sequence = promise.sequence
    assert promise.blocks is not None, f"request {sequence.request_id} arrived without blocks reserved for it"
    instance.admissions += 1
    sequence.admission = instance.admissions
    sequence.own_blocks, sequence.blocks, sequence.path = promise.blocks, promise.named, []
