"""What an iteration turned out to have done: tokens, ends, hand-overs, and the blocks that are free now."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from reference_impl.core.ahead import log_later_rows
from reference_impl.core.caching import share_prompt
from reference_impl.core.departure import finish, leave_batch, leave_foresight
from reference_impl.core.iteration import Foresight, Iteration
from reference_impl.core.lane import Lane
from reference_impl.core.sequence import Sequence

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance


def complete(
    instance: Instance,
    iteration: Iteration,
    finished: Collection[int],
    now_s: float,
    start_s: float | None = None,
) -> None:
    """Apply an outcome: every prefill that ended and every decode has its token; ``finished`` have their last.

    A lane's iterations complete in the order of their plans.  ``start_s``: when it really began, where that is not
    the moment of its plan, or (planned ahead) of the completion before it.  ``finished`` are request ids of this
    iteration, all among them that reach their limit; not those of its ``surplus``.  Sequences to hand over are left
    in :attr:`Instance.handovers`.
    """
    lane = iteration.lane
    oldest = lane.under_way.pop(0)
    assert oldest is iteration, "a lane's iterations complete in the order of their plans"
    lane.settled_s = now_s
    lane.started_s = iteration.start_s if start_s is None else start_s
    foresight = iteration.foresight
    if foresight is not None:
        _reconcile(instance, iteration, foresight, finished, now_s)
        lane.settled_s = max(now_s, foresight.planned_s)  # news of the end may come after the plan on top was made
        log_later_rows(foresight, lane.settled_s, lane.started_s)
    elif finished or iteration.ended:
        _apply(instance, iteration, finished, now_s)
    if lane.under_way:
        lane.under_way[0].start_s = lane.settled_s
    for held in iteration.held:
        instance.pool.release(held.named, held.unnamed)
        instance.index.release(held.path)
    if iteration.ended or finished or iteration.held:
        instance.changed = True


def _apply(instance: Instance, iteration: Iteration, finished: Collection[int], now_s: float) -> None:
    """The outcome of an iteration on top of which nothing is planned."""
    lane = iteration.lane
    for request_id in finished:
        sequence = lane.running(request_id)
        if sequence is not None and sequence.steps is not None and request_id not in iteration.surplus:
            leave_batch(instance, lane, sequence)
            finish(instance, lane, sequence, now_s)
    for sequence in iteration.ended:
        if sequence.ended:
            continue
        del lane.prefills[sequence.request_id]
        sequence.tokens_out += 1
        _yielded_first(instance, lane, sequence, now_s)
        if sequence.request_id in finished:
            instance.rest_no_more(sequence)
            finish(instance, lane, sequence, now_s)
        else:
            _pass_on(instance, sequence)


def _reconcile(
    instance: Instance, iteration: Iteration, foresight: Foresight, finished: Collection[int], now_s: float
) -> None:
    """Apply the outcome of an iteration on top of which a plan was made."""
    lane, due = iteration.lane, foresight.due
    forgotten = [request_id for request_id in due if request_id not in finished]
    assert not forgotten, f"requests {forgotten} reach their limit of tokens, but are not among the finished"
    first = {sequence.request_id for sequence in iteration.ended}
    for request_id in finished:
        sequence = due.get(request_id) or lane.running(request_id)
        if sequence is not None and request_id not in first and request_id not in iteration.surplus:
            _finish(instance, lane, foresight, sequence, now_s)
    for sequence in iteration.ended:
        if sequence.ended:
            continue
        _yielded_first(instance, lane, sequence, now_s)
        if sequence.request_id in finished:
            _finish(instance, lane, foresight, sequence, now_s)
        elif foresight.prefilled.pop(sequence.request_id, None) is not None:
            _pass_on(instance, sequence)


def _finish(instance: Instance, lane: Lane, foresight: Foresight, sequence: Sequence, now_s: float) -> None:
    """The last token of a sequence, wherever the plan on top has put it meanwhile."""
    if not leave_foresight(instance, foresight, sequence.request_id):
        leave_batch(instance, lane, sequence)
    finish(instance, lane, sequence, now_s)


def _yielded_first(instance: Instance, lane: Lane, sequence: Sequence, now_s: float) -> None:
    """A sequence's prompt is computed, and its token there."""
    sequence.ready_s = now_s
    if instance.caching:
        share_prompt(instance, lane, sequence)
    instance.log.prefilled.append((now_s, sequence.request_id, instance.instance_id, lane.kind, sequence.tokens_out))


def _pass_on(instance: Instance, sequence: Sequence) -> None:
    """A prefilled sequence goes to the decode lane, here or elsewhere."""
    if instance.decodes_elsewhere(sequence):
        instance.handovers.append(sequence)
        instance.outbound[sequence.request_id] = sequence
    else:
        assert instance.decode_lane is not None
        instance.decode_lane.incoming.append(sequence)
