"""How a sequence leaves an instance: it finishes, or its host ends or cancels it; and when its blocks are free."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from reference_impl.core.iteration import Foresight, Held
from reference_impl.core.lane import Lane
from reference_impl.core.prefix import Node
from reference_impl.core.sequence import Sequence

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance


def finish(instance: Instance, lane: Lane, sequence: Sequence, time_s: float) -> None:
    """A sequence that left its lane has its last token."""
    retire(instance, lane, sequence)
    row = (time_s, sequence.request_id, instance.instance_id, lane.kind, sequence.tokens_out)
    instance.log.finish.append(row)


def retire(instance: Instance, lane: Lane, sequence: Sequence) -> None:
    """Nothing that is still computed for a sequence counts; its blocks are given back."""
    sequence.ended = True
    for iteration in lane.under_way:
        if iteration.uses(sequence):
            iteration.surplus |= {sequence.request_id}
            foreseen = iteration.foresight is not None and sequence in iteration.ended
            if foreseen or iteration.decodes_for(sequence):
                sequence.tokens_out -= 1  # counted when it was planned or foreseen
    give_back(instance, lane, sequence)


def give_back(instance: Instance, lane: Lane, sequence: Sequence) -> None:
    """Return a sequence's blocks: its own to the pool, its prefix to the cache."""
    named = sequence.blocks
    let_go(instance, lane, sequence, named, sequence.own_blocks - len(named), sequence.path)


def let_go(
    instance: Instance, lane: Lane, sequence: Sequence, named: list[int], unnamed: int, path: list[Node]
) -> None:
    """Return some of a sequence's blocks; those that an iteration under way uses, once it completes.

    Whether the same lane could reuse them at once does not matter: on a lane beside it they would be written early.
    """
    for iteration in reversed(lane.under_way):
        if iteration.uses(sequence):
            iteration.held += (Held(named, unnamed, path),)
            return
    instance.pool.release(named, unnamed)
    if path:
        instance.index.release(path)


class Removed(NamedTuple):
    """A request that was taken out of an instance."""

    sequence: Sequence
    lane: Lane | None
    """None: it was on its way here."""
    time_s: float
    """The moment up to which its tokens count: those of iterations under way do not, even if the device is through."""


def remove(instance: Instance, request_id: int, now_s: float) -> Removed | None:
    """Take a request out of an instance, whatever its state; None where it is not here."""
    promise = instance.promises.get(request_id)
    if promise is not None:
        instance.withdraw(request_id)
        promise.sequence.ended = True
        return Removed(promise.sequence, None, now_s)
    removed = _from_outbound(instance, request_id, now_s)
    for lane in instance.lanes:
        removed = (
            removed or _from_lane(instance, lane, request_id, now_s) or _foreseen(instance, lane, request_id, now_s)
        )
    if removed is not None and removed.lane is not None:
        retire(instance, removed.lane, removed.sequence)
        instance.changed = True
    return removed


def evacuate(instance: Instance, now_s: float) -> list[Sequence]:
    """Take every request out of an instance that failed, by ascending id; what was promised to it is withdrawn before.

    Their tokens count up to the last iteration that completed.
    """
    there = set(instance.outbound)
    for lane in instance.lanes:
        for group in (lane.waiting, lane.prefilling, lane.decodes, lane.paused, lane.incoming):
            there.update(sequence.request_id for sequence in group)
        for foresight in lane.foresights():
            there.update((*foresight.due, *foresight.prefilled))
    removed = (remove(instance, request_id, now_s) for request_id in sorted(there))
    return [gone.sequence for gone in removed if gone is not None]


def _from_outbound(instance: Instance, request_id: int, now_s: float) -> Removed | None:
    sequence = instance.outbound.get(request_id)
    if sequence is None:
        return None
    if sequence in instance.handovers:
        instance.handovers.remove(sequence)
    leave_outbound(instance, sequence)
    return Removed(sequence, instance.lanes[0], now_s)


def _from_lane(instance: Instance, lane: Lane, request_id: int, now_s: float) -> Removed | None:
    """From the queue, the prefills, the decodes, or from where it waits to join them."""
    sequence = lane.is_waiting(request_id)
    if sequence is not None:
        lane.withdraw(sequence)
        instance.waiting_tokens -= sequence.target_tokens
        return Removed(sequence, lane, now_s)
    sequence = lane.running(request_id)
    if sequence is not None:
        time_s = _counts_until_s(lane, sequence, now_s)
        leave_batch(instance, lane, sequence)
        return Removed(sequence, lane, time_s)
    for sequence in lane.incoming:
        if sequence.request_id == request_id:
            lane.incoming.remove(sequence)
            instance.rest_no_more(sequence)
            return Removed(sequence, lane, sequence.ready_s)
    return None


def _counts_until_s(lane: Lane, sequence: Sequence, now_s: float) -> float:
    """The moment up to which the tokens of a running sequence count."""
    if sequence.request_id in lane.prefills or any(sequence in iteration.ended for iteration in lane.under_way):
        return now_s  # its prompt is being computed
    later = (row for foresight in lane.foresights() for row in foresight.later_rows)
    joins = any(row.sequence is sequence and row.only_if_started_since_s is not None for row in later)
    return sequence.ready_s if joins else max(sequence.ready_s, lane.settled_s)


def _foreseen(instance: Instance, lane: Lane, request_id: int, now_s: float) -> Removed | None:
    """From among those that the iteration under way makes leave its lane."""
    for foresight in lane.foresights():
        sequence = foresight.due.get(request_id) or foresight.prefilled.get(request_id)
        if sequence is not None:
            leave_foresight(instance, foresight, request_id)
            return Removed(sequence, lane, _counts_until_s(lane, sequence, now_s))
    return None


def leave_foresight(instance: Instance, foresight: Foresight, request_id: int) -> bool:
    """A sequence that the iteration under way makes leave its lane is gone for good; False: it is none of those."""
    if request_id in foresight.due:
        instance.due -= 1
    sequence = foresight.due.pop(request_id, None) or foresight.prefilled.pop(request_id, None)
    if sequence is not None:
        instance.rest_no_more(sequence)
    return sequence is not None


def leave_outbound(instance: Instance, sequence: Sequence) -> None:
    """A sequence that was to be handed over, or was, leaves the instance that prefilled it."""
    del instance.outbound[sequence.request_id]
    instance.rest_no_more(sequence)


def leave_batch(instance: Instance, lane: Lane, sequence: Sequence) -> None:
    """A sequence that computes on ``lane`` leaves it; its blocks are still its own."""
    request_id = sequence.request_id
    instance.running -= 1
    if sequence.steps is not None:
        lane.leave(sequence)
        return
    instance.resting_tokens -= sequence.computed_tokens
    if lane.skipped.pop(request_id, None) is None:
        del lane.prefills[request_id]
        instance.waiting_tokens -= sequence.target_tokens - sequence.computed_tokens
