"""Decide, then apply: a batch plan that was checked (``plan_check``) changes the lane and becomes an iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.api import BatchPlan
from reference_impl.core.ahead import must_wait
from reference_impl.core.iteration import Foresight, Iteration
from reference_impl.core.lane import Lane
from reference_impl.core.plan_check import NO_CHUNKS, Change, Chunks, check_blocks, check_change, check_prefills, refuse
from reference_impl.core.sequence import Sequence
from reference_impl.latency.api import Work

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance

_new = tuple.__new__
"""Makes a named tuple without the Python-level constructor: these are made in every iteration."""
_NOBODY: list[Sequence] = []


def apply_plan(
    instance: Instance, lane: Lane, plan: BatchPlan, now_s: float, ahead_of: Foresight | None
) -> Iteration | None:
    """Check ``plan`` and reserve what it needs; None where it runs nothing, or was made ahead and must wait.

    Order, as in vLLM: preemptions that the policy names, then the decodes (where they do not fit, the latest
    admitted sequence is preempted until they do, and then no waiting request is admitted), then the prefills.
    """
    if type(plan) is not BatchPlan:
        refuse(lane, plan, "a BatchPlan")
    if ahead_of is not None and must_wait(lane, plan):
        return None
    prefills, decode, skip, preempt, holds, _ = plan
    chunks = NO_CHUNKS
    if preempt or skip or lane.skipped:
        change = check_change(lane, plan)
        if prefills:
            chunks = check_prefills(lane, plan, change.decodes, len(change.preempt))
        _change(instance, lane, change, plan.reason, now_s, ahead_of)
        holds = holds and not preempt
    elif prefills:
        chunks = check_prefills(lane, plan, len(lane.decodes), 0)
    decodes = len(lane.decodes) if decode else 0
    if decodes and lane.decode_blocks > lane.pool.available:
        assert ahead_of is None, "a plan made ahead was taken for one that fits"
        decodes = _make_room(instance, lane, now_s)
        chunks = _still_possible(lane, chunks)
        holds = False
    elif chunks:
        check_blocks(lane, plan, chunks, decodes)
    if not decodes and not chunks:
        return None
    return _reserve(instance, lane, chunks, decodes, holds, now_s, ahead_of)


def _reserve(
    instance: Instance,
    lane: Lane,
    chunks: Chunks,
    decodes: int,
    holds: bool,
    now_s: float,
    ahead_of: Foresight | None,
) -> Iteration:
    """Take the memory of an iteration that is known to fit, and count its tokens."""
    parts: tuple[tuple[int, int], ...] = ()
    ended = _NOBODY
    prefill_tokens = context_tokens = low = high = 0
    if chunks:
        for sequence, _ in chunks:  # before any block is taken: it may not be evicted from under their prefix hits
            if sequence.request_id not in lane.prefills:
                instance.admit(sequence, lane, now_s, ahead_of)
        parts = tuple([(tokens, sequence.computed_tokens) for sequence, tokens in chunks])
    if decodes:
        lane.start_decodes(1)
        context_tokens = lane.context_tokens
        if lane.needs_spread:
            low, high = _spread(lane)
    if chunks:
        for sequence, tokens in chunks:
            prefill_tokens += tokens
            instance.compute(sequence, tokens)
            if sequence.computed_tokens == sequence.target_tokens:
                ended = [*ended, sequence]
    work = _new(Work, (parts, decodes, context_tokens, low, high))
    joined = lane.joined
    if joined:
        lane.joined = []
        joined = [sequence for sequence in dict.fromkeys(joined) if sequence.steps is lane.steps]
    return Iteration(lane, chunks, prefill_tokens, decodes, joined, ended, work, holds, now_s)


def _change(
    instance: Instance, lane: Lane, change: Change, reason: str | None, now_s: float, ahead_of: Foresight | None
) -> None:
    """Preempt what the plan names, take back the paused decodes that it does not skip, pause those that it does."""
    for sequence in change.preempt:
        instance.preempt(sequence, lane, now_s, reason or "named by the batch policy")
    back = lane.skipped.keys() - change.skip
    for sequence in [paused for paused in lane.paused if paused.request_id in back] if back else ():
        del lane.skipped[sequence.request_id]
        instance.resting_tokens -= sequence.computed_tokens
        lane.join(sequence)
        instance.log_change("resume", sequence, lane, now_s, ahead_of)
    for request_id in sorted(change.skip.difference(lane.skipped)):
        skipped = lane.running(request_id)
        if skipped is not None and skipped.steps is not None:
            lane.leave(skipped)
            lane.skipped[request_id] = skipped
            instance.resting_tokens += skipped.computed_tokens
            instance.log_change("pause", skipped, lane, now_s, ahead_of)


def _make_room(instance: Instance, lane: Lane, now_s: float) -> int:
    """Preempt, latest admitted first, until the remaining decodes fit; returns how many those are."""
    while lane.decodes and lane.decode_blocks > lane.pool.available:
        holders = [*lane.decodes, *lane.prefills.values(), *lane.paused]
        instance.preempt(max(holders, key=_admission), lane, now_s, "no free KV block")
    return len(lane.decodes)


def _still_possible(lane: Lane, chunks: Chunks) -> Chunks:
    """After preemptions: chunks of prefills already under way, as far as blocks go. Nobody new is admitted."""
    kept = []
    free = lane.pool.available - lane.decode_blocks
    for sequence, tokens in chunks:
        free -= lane.blocks_needed(sequence, tokens)
        if sequence.request_id not in lane.prefills or free < 0:
            break
        kept.append((sequence, tokens))
    return kept


def _admission(sequence: Sequence) -> int:
    return sequence.admission


def _spread(lane: Lane) -> tuple[int, int]:
    contexts = [sequence.context_tokens for sequence in lane.decodes]
    return min(contexts), max(contexts)
