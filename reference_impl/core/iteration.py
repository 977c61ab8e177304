"""A planned iteration: what an executor turns into an outcome."""

from __future__ import annotations

from reference_impl.core.lane import Lane
from reference_impl.core.sequence import Sequence
from reference_impl.latency.api import Work


class Iteration:
    """One forward pass of a lane, planned and with its memory reserved.

    With ``holds`` the host may repeat it (:meth:`Instance.repeat`) while nothing on the instance changes.
    """

    __slots__ = ("chunks", "decodes", "ended", "holds", "joined", "lane", "prefill_tokens", "work")

    def __init__(
        self,
        lane: Lane,
        chunks: list[tuple[Sequence, int]],
        prefill_tokens: int,
        decodes: int,
        joined: list[Sequence],
        ended: list[Sequence],
        work: Work,
        holds: bool,
    ) -> None:
        self.lane = lane
        self.chunks = chunks
        """(sequence, new tokens) per prefill chunk."""
        self.prefill_tokens = prefill_tokens
        """New tokens of all chunks."""
        self.decodes = decodes
        """Size of the decode batch; 0 where none takes part."""
        self.joined = joined
        """Sequences that this plan added to the decode batch."""
        self.work = work
        self.holds = holds
        self.ended = ended
        """Sequences whose prompt this iteration completes: it yields a token for each."""
