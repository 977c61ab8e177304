"""A lane as a policy is shown it: by the recorder, which notes its questions, and again in a replay."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from policies.api import Estimate, LaneView, Queue, RequestView, SequenceView
from reference_impl.recording.answers import Answers, NotedEstimate, Notes, RecordedEstimate
from reference_impl.recording.rows import LaneTotals, Row, SeenSequence

Group = Collection[SequenceView]
Groups = tuple[Queue[SequenceView], Group, Group, Group]
"""Waiting, prefilling, decoding, paused."""


class _Lane:
    """What a LaneView holds besides its two questions."""

    def __init__(self, totals: LaneTotals, groups: Groups, estimate: Estimate) -> None:
        self.now_s = totals.now_s
        self.kind = totals.kind
        self.instance_id = totals.instance_id
        self.free_blocks = totals.free_blocks
        self.total_blocks = totals.total_blocks
        self.block_tokens = totals.block_tokens
        self.max_sequences = totals.max_sequences
        self.running_sequences = totals.running_sequences
        self.max_batch_tokens = totals.max_batch_tokens
        self.decode_blocks = totals.decode_blocks
        self.decode_iterations = totals.decode_iterations
        self.waiting, self.prefilling, self.decodes, self.paused = groups
        self.estimate = estimate


class RecordedLane(_Lane):
    """A host's lane, its answers noted; satisfies ``policies.api.LaneView``."""

    def __init__(self, lane: LaneView, totals: LaneTotals, answers: Answers) -> None:
        groups = (lane.waiting, lane.prefilling, lane.decodes, lane.paused)
        super().__init__(totals, groups, RecordedEstimate(lane.estimate, answers))
        self._lane = lane
        self._answers = answers

    def uncomputed_tokens(self, sequence: SequenceView) -> int:
        """See ``policies.api.LaneView``."""
        tokens = self._lane.uncomputed_tokens(sequence)
        self._answers.append(("uncomputed_tokens", sequence.request_id, tokens))
        return tokens

    def blocks_needed(self, sequence: SequenceView, tokens: int) -> int:
        """See ``policies.api.LaneView``."""
        blocks = self._lane.blocks_needed(sequence, tokens)
        self._answers.append(("blocks_needed", sequence.request_id, tokens, blocks))
        return blocks


class ReplayedLane(_Lane):
    """One recorded moment; satisfies ``policies.api.LaneView``."""

    def __init__(
        self, totals: Row, groups: Sequence[Sequence[Row]], requests: Mapping[int, RequestView], notes: Notes
    ) -> None:
        waiting, prefilling, decodes, paused = (
            tuple(SeenSequence(requests[request_id], *numbers) for request_id, *numbers in group) for group in groups
        )
        super().__init__(LaneTotals(*totals), (waiting, prefilling, decodes, paused), NotedEstimate(notes))
        self._notes = notes

    def uncomputed_tokens(self, sequence: SequenceView) -> int:
        """As recorded."""
        return int(self._notes.answer("uncomputed_tokens", sequence.request_id))

    def blocks_needed(self, sequence: SequenceView, tokens: int) -> int:
        """As recorded."""
        return int(self._notes.answer("blocks_needed", sequence.request_id, tokens))
