"""From a planned iteration to what an executor gets: block tables, tokens, positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reference_impl.core.instance import Instance
from reference_impl.core.iteration import Iteration
from reference_impl.core.sequence import Sequence
from reference_impl.engine.api import ChunkRow, DecodeRow, ForwardBatch
from reference_impl.engine.live import Live

_new = tuple.__new__
"""Makes a named tuple without the Python-level constructor: there is a row for each sequence of each iteration."""


@dataclass(frozen=True, slots=True)
class Flight:
    """An iteration under way."""

    iteration: Iteration
    batch: ForwardBatch
    yields: list[Live]
    """Whom its outcome's tokens belong to, in their order."""


def build_flight(instance: Instance, iteration: Iteration, lives: Mapping[int, Live], ordinal: int) -> Flight:
    """Name the blocks and gather the tokens of an iteration that was planned this very moment."""
    yields: list[Live] = []
    chunks = tuple([_chunk(instance, lives, yields, iteration, part) for part in iteration.chunks])
    decodes: tuple[DecodeRow, ...] = ()
    if iteration.decodes:
        decodes = tuple([_decode(instance, lives, yields, sequence) for sequence in iteration.lane.decodes])
    return Flight(iteration, ForwardBatch(ordinal, chunks, decodes), yields)


def _chunk(
    instance: Instance,
    lives: Mapping[int, Live],
    yields: list[Live],
    iteration: Iteration,
    part: tuple[Sequence, int],
) -> ChunkRow:
    sequence, count = part
    live = lives[sequence.request_id]
    ends = sequence in iteration.ended
    if ends:
        live.pending += 1
        yields.append(live)
    end = sequence.computed_tokens
    tokens = live.tokens[end - count : end]
    return ChunkRow(sequence.request_id, tokens, end - count, instance.name_blocks(sequence), ends)


def _decode(instance: Instance, lives: Mapping[int, Live], yields: list[Live], sequence: Sequence) -> DecodeRow:
    live = lives[sequence.request_id]
    token = None if live.pending else live.tokens[-1]
    live.pending += 1
    yields.append(live)
    row = (sequence.request_id, token, sequence.context_tokens - 1, instance.name_blocks(sequence))
    return _new(DecodeRow, row)
