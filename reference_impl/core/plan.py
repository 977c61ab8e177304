"""Decide, then apply: a batch plan is checked against the lane and only then changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from policies.api import BatchPlan, PolicyError
from reference_impl.core.iteration import Iteration
from reference_impl.core.lane import Lane
from reference_impl.core.sequence import Sequence
from reference_impl.latency.api import Work

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance


def apply_plan(instance: Instance, lane: Lane, plan: BatchPlan, now_s: float) -> Iteration | None:
    """Check ``plan`` and reserve what it needs; None where it runs nothing.

    Order, as in vLLM: preemptions that the policy names, then the decodes (where they do not fit, the latest
    admitted sequence is preempted until they do, and then no waiting request is admitted), then the prefills.
    """
    if type(plan) is not BatchPlan:
        _refuse(lane, plan, "a BatchPlan")
    prefills, decode, skip, preempt, holds, _ = plan
    chunks = _check_prefills(instance, lane, plan) if prefills else _NO_CHUNKS
    if preempt:
        _preempt_named(instance, lane, plan, now_s)
        holds = False
    if skip or lane.skipped:
        _change_skipped(instance, lane, plan, now_s)
    decodes = len(lane.decodes) if decode else 0
    pool = lane.pool
    if decodes and lane.decode_blocks > pool.available:
        decodes = _make_room(instance, lane, now_s)
        chunks = _still_possible(lane, chunks)
        holds = False
    elif chunks:
        _check_blocks(lane, plan, chunks, decodes)
    if not decodes and not chunks:
        return None
    parts: tuple[tuple[int, int], ...] = ()
    ended = _NOBODY
    if chunks:
        for sequence, _ in chunks:  # before any block is taken: it may not be evicted from under their prefix hits
            if sequence.request_id not in lane.prefills:
                instance.admit(sequence, lane, now_s)
        parts = tuple([(tokens, sequence.computed_tokens) for sequence, tokens in chunks])
    if decodes:
        lane.start_decodes(1)
    for sequence, tokens in chunks:
        instance.compute(sequence, tokens)
        if sequence.computed_tokens == sequence.target_tokens:
            ended = [*ended, sequence]
    low, high = _spread(lane) if decodes and instance.spec.latency.needs_spread else (0, 0)
    work = _new(Work, (parts, decodes, lane.context_tokens if decodes else 0, low, high))
    joined = lane.joined
    if joined:
        lane.joined = []
        joined = [sequence for sequence in dict.fromkeys(joined) if sequence.steps is lane.steps]
    return Iteration(lane, chunks, decodes, joined, ended, work, holds)


_new = tuple.__new__
"""Makes a named tuple without the Python-level constructor: these are made in every iteration."""
_NO_CHUNKS: list[tuple[Sequence, int]] = []
_NOBODY: list[Sequence] = []


def _check_prefills(instance: Instance, lane: Lane, plan: BatchPlan) -> list[tuple[Sequence, int]]:
    chunks: list[tuple[Sequence, int]] = []
    total = 0
    admitted = 0
    prefills = lane.prefills
    for request_id, tokens in plan.prefills:
        sequence = prefills.get(request_id)
        if sequence is None:
            sequence = lane.is_waiting(request_id)
            admitted += 1
            if sequence is None:
                _refuse(lane, plan, f"prefills of waiting or partly prefilled requests, not of {request_id}")
        left = lane.uncomputed_tokens(sequence)
        if not 1 <= tokens <= left:
            _refuse(lane, plan, f"1 to {left} tokens of request {request_id}, not {tokens}")
        total += tokens
        chunks.append((sequence, tokens))
    if len(chunks) > 1 and len({s.request_id for s, _ in chunks}) < len(chunks):
        _refuse(lane, plan, "one chunk per request")
    if total + (len(lane.decodes) if plan.decode else 0) > instance.spec.max_batch_tokens:
        _refuse(lane, plan, f"max_batch_tokens = {instance.spec.max_batch_tokens} tokens in one iteration")
    if admitted and instance.running + admitted > instance.spec.max_sequences:
        _refuse(lane, plan, f"max_sequences = {instance.spec.max_sequences}, of which {instance.running} are taken")
    return chunks


def _check_blocks(lane: Lane, plan: BatchPlan, chunks: list[tuple[Sequence, int]], decodes: int) -> None:
    need = lane.decode_blocks if decodes else 0
    for sequence, tokens in chunks:
        need += lane.blocks_needed(sequence, tokens)
    if need > lane.pool.available:
        _refuse(lane, plan, f"{lane.pool.available} free KV blocks (this plan takes {need})")


def _preempt_named(instance: Instance, lane: Lane, plan: BatchPlan, now_s: float) -> None:
    named: list[Sequence] = []
    planned = {request_id for request_id, _ in plan.prefills}
    for request_id in plan.preempt:
        sequence = lane.running(request_id)
        if sequence is None or request_id in planned:
            _refuse(lane, plan, f"preemption of running requests that the plan does not prefill, not of {request_id}")
        named.append(sequence)
    for sequence in dict.fromkeys(named):
        instance.preempt(sequence, lane, now_s, plan.reason or "named by the batch policy")


def _change_skipped(instance: Instance, lane: Lane, plan: BatchPlan, now_s: float) -> None:
    """Pause the decodes that the plan skips and take the others back."""
    unknown = [i for i in plan.skip if i not in lane.skipped and (lane.running(i) is None or i in lane.prefills)]
    unknown = [i for i in unknown if i not in plan.preempt]
    if unknown:
        _refuse(lane, plan, f"skipping of running decodes, not of {unknown[0]}")
    for request_id in [i for i in lane.skipped if i not in plan.skip]:
        sequence = lane.skipped.pop(request_id)
        instance.resting_tokens -= sequence.computed_tokens
        lane.join(sequence)
        instance.log.resume.append((now_s, request_id, instance.instance_id, lane.kind))
    for request_id in sorted(plan.skip):
        skipped = lane.running(request_id)
        if skipped is not None and skipped.steps is not None:
            lane.leave(skipped)
            lane.skipped[request_id] = skipped
            instance.resting_tokens += skipped.computed_tokens
            instance.log.pause.append((now_s, request_id, instance.instance_id, lane.kind))


def _make_room(instance: Instance, lane: Lane, now_s: float) -> int:
    """Preempt, latest admitted first, until the remaining decodes fit; returns how many those are."""
    while lane.decodes and lane.decode_blocks > lane.pool.available:
        holders = [*lane.decodes, *lane.prefills.values(), *lane.paused]
        instance.preempt(max(holders, key=_admission), lane, now_s, "no free KV block")
    return len(lane.decodes)


def _still_possible(lane: Lane, chunks: list[tuple[Sequence, int]]) -> list[tuple[Sequence, int]]:
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


def _refuse(lane: Lane, plan: object, allowed: str) -> NoReturn:
    policy = lane.batch
    raise PolicyError(
        f"batch policy {getattr(policy, 'name', type(policy).__name__)!r} on instance {lane.instance_id} ({lane.kind}"
        f" lane) decided {plan}; allowed: {allowed}"
    )
