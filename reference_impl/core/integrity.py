"""What must be true of an instance between any two calls: every block has one owner, every total is what it counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from reference_impl.core.iteration import Held
from reference_impl.core.lane import Lane
from reference_impl.core.sequence import Sequence

if TYPE_CHECKING:
    from reference_impl.core.instance import Instance


def check_integrity(instance: Instance) -> None:
    """Raise AssertionError unless blocks, references and totals add up."""
    named: list[int] = []
    unnamed = 0
    for sequence in _holders(instance):
        own = _own_blocks(instance, sequence)
        assert sequence.steps is not None or own == sequence.own_blocks, (
            f"sequence {sequence.request_id} has {sequence.own_blocks} blocks for {sequence.context_tokens} tokens"
        )
        named += sequence.blocks
        unnamed += own - len(sequence.blocks)
    for promise in instance.promises.values():
        named += promise.named
        unnamed += (promise.blocks or 0) - len(promise.named)
    for held in _held(instance):
        named += held.named
        unnamed += held.unnamed
    instance.pool.check_integrity(named, unnamed)
    _check_totals(instance)
    for lane in instance.lanes:
        _check_lane(lane)


def _holders(instance: Instance) -> Iterator[Sequence]:
    """Every sequence whose KV is on this instance."""
    yield from _resting(instance)
    for lane in instance.lanes:
        yield from lane.decodes


def _resting(instance: Instance) -> Iterator[Sequence]:
    """Every sequence that holds KV outside of a decode batch."""
    yield from instance.outbound.values()
    for lane in instance.lanes:
        yield from (*lane.prefilling, *lane.paused, *lane.incoming)
        for foresight in lane.foresights():
            yield from (*foresight.due.values(), *foresight.prefilled.values())


def _held(instance: Instance) -> Iterator[Held]:
    for lane in instance.lanes:
        for iteration in lane.under_way:
            yield from iteration.held


def _own_blocks(instance: Instance, sequence: Sequence) -> int:
    cached = len(sequence.path) * instance.blocks_per_id
    return -(-sequence.context_tokens // instance.spec.block_tokens) - cached


def _check_totals(instance: Instance) -> None:
    resting = list(_resting(instance))
    reserved = [promise for promise in instance.promises.values() if promise.blocks is not None]
    expected = [promise for promise in instance.promises.values() if promise.blocks is None]
    running = len(resting) + len(reserved) + sum(len(lane.decodes) for lane in instance.lanes)
    assert instance.running == running, f"{instance.running} sequences noted, {running} hold KV"
    tokens = sum(s.computed_tokens for s in resting) + sum(promise.tokens for promise in reserved)
    assert instance.resting_tokens == tokens, f"{instance.resting_tokens} resting tokens noted, {tokens} found"
    uncomputed = sum(promise.tokens for promise in expected)
    for lane in instance.lanes:
        uncomputed += sum(s.target_tokens - s.computed_tokens for s in (*lane.waiting, *lane.prefilling))
    assert instance.waiting_tokens == uncomputed, f"{instance.waiting_tokens} waiting tokens noted, {uncomputed} found"
    due = sum(len(foresight.due) for lane in instance.lanes for foresight in lane.foresights())
    assert instance.due == due, f"{instance.due} sequences noted that reach their limit, {due} found"
    assert instance.inbound == len(expected), f"{instance.inbound} inbound requests noted, {len(expected)} expected"
    assert all(sequence.request_id in instance.outbound for sequence in instance.handovers)


def _check_lane(lane: Lane) -> None:
    context = sum(sequence.context_tokens for sequence in lane.decodes)
    assert lane.context_tokens == context, f"{lane.context_tokens} context tokens noted, {context} found"
    count, size = lane.steps.count, lane.block_tokens
    due = sum(1 for sequence in lane.decodes if not sequence.context_tokens % size)
    assert lane.decode_blocks == due, f"{lane.decode_blocks} decodes need a block at iteration {count}, {due} found"
    assert len(lane.under_way) < 3, f"{len(lane.under_way)} iterations under way"
