"""Planning one iteration ahead: what the one under way certainly does.

What a forward does by count is known when it is planned: prompts end, decodes reach their limit. That is applied at
once, so that the next iteration can be planned on top. What only its tokens tell (an end-of-sequence token, a stop) is
reconciled when it completes (``completion.py``): who ended leaves the batch then, although the iteration planned ahead
still computes a token for it, the surplus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.api import BatchPlan
from reference_impl.core.iteration import Foresight, Iteration
from reference_impl.core.lane import Lane
from reference_impl.core.moments import time_key
from reference_impl.core.plan_check import check_change

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance


def foresee(instance: Instance, iteration: Iteration, now_s: float) -> Foresight:
    """What the iteration under way does by count, applied once, for a plan on top that is asked for now."""
    if iteration.foresight is None:
        iteration.foresight = _apply(instance, iteration)
    iteration.foresight.planned_s = now_s
    return iteration.foresight


def _apply(instance: Instance, iteration: Iteration) -> Foresight:
    """Decodes that reach their limit leave the batch. Prompts that end leave the prefills.

    On a mixed lane these join the decodes, whose next forward runs behind this one. On another lane, and where another
    instance decodes them, they wait until their KV is there.
    """
    lane, foresight = iteration.lane, Foresight()
    for sequence in lane.at_limit():
        lane.leave(sequence)
        instance.resting_tokens += sequence.computed_tokens
        foresight.due[sequence.request_id] = sequence
    for sequence in iteration.ended:
        if sequence.ended:
            continue
        del lane.prefills[sequence.request_id]
        sequence.tokens_out += 1
        if sequence.tokens_out == sequence.limit_tokens:
            foresight.due[sequence.request_id] = sequence
        elif lane.kind == "mixed" and not instance.decodes_elsewhere(sequence):
            instance.resting_tokens -= sequence.computed_tokens
            lane.join(sequence)
        else:
            foresight.prefilled[sequence.request_id] = sequence
    instance.due += len(foresight.due)
    return foresight


def must_wait(lane: Lane, plan: BatchPlan) -> bool:
    """Whether a plan made ahead has to be asked for again when the iteration under way has completed.

    So it is where it would preempt, whether the policy says so or the decodes do not fit, and where it runs nothing.
    """
    if plan.preempt:
        return True
    if not plan.decode:
        return not plan.prefills
    if not plan.skip and not lane.skipped:
        decodes, need = len(lane.decodes), lane.decode_blocks
    else:
        decodes, need = check_change(lane, plan).decodes, lane.blocks_after_skipping(plan.skip)
    return need > lane.pool.available if decodes else not plan.prefills


def log_later_rows(foresight: Foresight, time_s: float, started_s: float) -> None:
    """What was planned on top of an iteration that ran from ``started_s`` took effect at ``time_s``."""
    for rows, cells, sequence, since_s in foresight.later_rows:
        if not sequence.ended and (since_s is None or time_key(since_s) <= time_key(started_s)):
            rows.append((time_s, *cells))
