"""What a batch plan must satisfy. Nothing here changes anything."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from policies.api import BatchPlan, PolicyError
from reference_impl.core.lane import Lane
from reference_impl.core.sequence import Sequence

Chunks = list[tuple[Sequence, int]]
"""A sequence and how many of its tokens to compute."""
NO_CHUNKS: Chunks = []


class Change(NamedTuple):
    """What becomes of the running sequences before the iteration."""

    preempt: list[Sequence]
    skip: frozenset[int]
    decodes: int
    """Size of the decode batch afterwards."""


def check_change(lane: Lane, plan: BatchPlan) -> Change:
    """Resolve whom the plan preempts and skips. Raises PolicyError for ids that are not running."""
    if plan.reason is not None and type(plan.reason) is not str:
        refuse(lane, plan, "a text as reason, or none")
    try:
        named = dict.fromkeys(plan.preempt)
        skip = frozenset(plan.skip)
        planned = {request_id for request_id, _ in plan.prefills}
    except (TypeError, ValueError):
        refuse(lane, plan, "collections of request ids as preempt and skip, and of Chunks as prefills")
    preempt = []
    for request_id in named:
        sequence = lane.running(request_id)
        if sequence is None or request_id in planned:
            refuse(lane, plan, f"preemption of running requests that the plan does not prefill, not of {request_id}")
        preempt.append(sequence)
    for request_id in skip.difference(lane.skipped):
        if not lane.decodes_now(request_id):
            refuse(lane, plan, f"skipping of running decodes, not of {request_id}")
    gone = sum(1 for i in named if i not in skip and (i in lane.skipped or lane.decodes_now(i)))
    return Change(preempt, skip, len(lane.decodes) + len(lane.skipped) - len(skip) - gone)


def check_prefills(lane: Lane, plan: BatchPlan, decodes: int, preempted: int) -> Chunks:
    """Resolve the plan's chunks. Raises PolicyError for unknown requests, wrong sizes and broken engine limits."""
    try:
        chunks, total, admitted = _resolve(lane, plan)
    except (TypeError, ValueError):
        _check_shape(lane, plan)
        raise
    if plan.decode:
        total += decodes
    if len(chunks) > 1 and len({sequence.request_id for sequence, _ in chunks}) < len(chunks):
        refuse(lane, plan, "one chunk per request")
    if total > lane.max_batch_tokens:
        refuse(lane, plan, f"max_batch_tokens = {lane.max_batch_tokens} tokens in one iteration, not {total}")
    running = lane.running_sequences - preempted
    if admitted and running + admitted > lane.max_sequences:
        refuse(lane, plan, f"max_sequences = {lane.max_sequences}, of which {running} are taken")
    return chunks


def _resolve(lane: Lane, plan: BatchPlan) -> tuple[Chunks, int, int]:
    """The chunks, their tokens, and how many of them admit a waiting request."""
    chunks: Chunks = []
    total = admitted = 0
    for request_id, tokens in plan.prefills:
        sequence = lane.prefills.get(request_id)
        if sequence is None:
            sequence = lane.is_waiting(request_id)
            admitted += 1
            if sequence is None:
                refuse(lane, plan, f"prefills of waiting or partly prefilled requests, not of {request_id!r}")
        left = lane.uncomputed_tokens(sequence)
        if type(tokens) is not int or not 1 <= tokens <= left:
            refuse(lane, plan, f"1 to {left} tokens (int) of request {request_id}, not {tokens!r}")
        total += tokens
        chunks.append((sequence, tokens))
    return chunks, total, admitted


def _check_shape(lane: Lane, plan: BatchPlan) -> None:
    try:
        for request_id, _ in plan.prefills:
            hash(request_id)
    except (TypeError, ValueError):
        refuse(lane, plan, "a collection of Chunks (request_id, tokens) as prefills")


def check_blocks(lane: Lane, plan: BatchPlan, chunks: Chunks, decodes: int) -> None:
    """Raise PolicyError unless the chunks fit beside the decodes."""
    need = lane.decode_blocks if decodes else 0
    for sequence, tokens in chunks:
        need += lane.blocks_needed(sequence, tokens)
    if need > lane.pool.available:
        refuse(lane, plan, f"{lane.pool.available} free KV blocks (this plan takes {need})")


def refuse(lane: Lane, plan: object, allowed: str) -> NoReturn:
    """Raise PolicyError naming the policy, what it decided and what was allowed."""
    name = getattr(lane.batch, "name", type(lane.batch).__name__)
    raise PolicyError(
        f"batch policy {name!r} on instance {lane.instance_id} ({lane.kind} lane) decided {plan}; allowed: {allowed}"
    )
