"""A planned iteration: what an executor turns into an outcome."""

from __future__ import annotations

from typing import Any, NamedTuple

from reference_impl.core.lane import Lane
from reference_impl.core.prefix import Node
from reference_impl.core.sequence import Sequence
from reference_impl.latency.api import Work


class Held(NamedTuple):
    """KV blocks that nobody needs any more, except an iteration that is under way."""

    named: list[int]
    unnamed: int
    path: list[Node]


class LaterRow(NamedTuple):
    """A row of the event log whose time is not known yet: the end of the iteration under way, or a plan after it."""

    rows: list[tuple[Any, ...]]
    """The log's list that it belongs to."""
    cells: tuple[Any, ...]
    """What follows ``time_s``."""
    sequence: Sequence
    """Nothing is logged if it is gone by then."""
    only_if_started_since_s: float | None = None
    """Only if the iteration under way began at this time or later."""


class Foresight:
    """What an iteration under way certainly does, applied because a plan was made on top of it."""

    __slots__ = ("due", "later_rows", "planned_s", "prefilled")

    def __init__(self) -> None:
        self.planned_s = 0.0
        """When the plan on top was asked for last."""
        self.due: dict[int, Sequence] = {}
        """Sequences that reach their limit of tokens by it; they left the batch, and still hold their blocks."""
        self.prefilled: dict[int, Sequence] = {}
        """Sequences whose prompt it ends, not to be decoded on its lane: they belong to no lane until it completes."""
        self.later_rows: list[LaterRow] = []


_NOTHING_HELD: tuple[Held, ...] = ()
_NO_SURPLUS: frozenset[int] = frozenset()


class Iteration:
    """One forward pass of a lane, planned and with its memory reserved.

    With ``holds`` the host may repeat it (:meth:`Instance.repeat`) while nothing on the instance changes.
    """

    __slots__ = (
        "chunks",
        "decodes",
        "ended",
        "foresight",
        "held",
        "holds",
        "joined",
        "lane",
        "prefill_tokens",
        "start_s",
        "step",
        "surplus",
        "work",
    )

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
        start_s: float,
    ) -> None:
        self.lane = lane
        self.chunks = chunks
        """(sequence, new tokens) per prefill chunk."""
        self.prefill_tokens = prefill_tokens
        """New tokens of all chunks."""
        self.decodes = decodes
        """Size of the decode batch; 0 where none takes part. They are the lane's decodes when it was planned."""
        self.joined = joined
        """Sequences that this plan added to the decode batch."""
        self.work = work
        self.holds = holds
        self.ended = ended
        """Sequences whose prompt this iteration completes: it yields a token for each."""
        self.start_s = start_s
        """When it was planned; if ahead: when the one before it ended."""
        self.step = lane.steps.count
        """The lane's count of decode iterations, this one included."""
        self.foresight: Foresight | None = None
        self.held = _NOTHING_HELD
        """Given back when it completes."""
        self.surplus = _NO_SURPLUS
        """Requests that ended meanwhile: its token for them, if there is one, does not count."""

    def uses(self, sequence: Sequence) -> bool:
        """Whether the forward reads or writes KV of this sequence."""
        return self.decodes_for(sequence) or any(chunked is sequence for chunked, _ in self.chunks)

    def decodes_for(self, sequence: Sequence) -> bool:
        """Whether this sequence, decoding or no more, is one of the decodes."""
        until = sequence.left_at if sequence.steps is None else self.step
        return self.decodes > 0 and sequence.tokens_out_base < self.step <= until


def log_row(
    rows: list[tuple[Any, ...]], cells: tuple[Any, ...], sequence: Sequence, now_s: float, ahead_of: Foresight | None
) -> None:
    """Log what a plan does now; of a plan made ahead: when the iteration under way completes."""
    if ahead_of is None:
        rows.append((now_s, *cells))
    else:
        ahead_of.later_rows.append(LaterRow(rows, cells, sequence))
