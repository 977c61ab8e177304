"""How long an iteration takes: the seam between a host and a cost model."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Work(NamedTuple):
    """The content of one iteration on one lane, as a cost model sees it."""

    chunks: tuple[tuple[int, int], ...]
    """Per prefill chunk: (new tokens, tokens already computed before it)."""
    decodes: int
    """Decoding sequences in the batch."""
    decode_context_tokens: int
    """KV tokens that this iteration's decodes read, summed, the new token of each included."""
    decode_context_min_tokens: int = 0
    """Shortest decode context; filled only for a model with ``needs_spread``."""
    decode_context_max_tokens: int = 0


class Piece(NamedTuple):
    """Durations of an iteration that is repeated with the same chunk sizes and the same decodes.

    Repeat j = 0, 1, ... lasts ``first_s + j * growth_s``; exact for the first ``iterations`` repeats (then ask again).
    In repeat j every decode context is j tokens longer and every chunk starts j chunk lengths further on.
    """

    first_s: float
    growth_s: float
    iterations: int


class LatencyModel(Protocol):
    """A cost model of one instance (all its devices together), whole device, nothing co-running."""

    @property
    def name(self) -> str: ...
    @property
    def provenance(self) -> str:
        """Where the numbers come from, and the measured error or the word ``uncalibrated``."""
        ...

    @property
    def needs_spread(self) -> bool:
        """Whether :attr:`Work.decode_context_min_tokens` and ``..._max_tokens`` must be filled (costs O(batch))."""
        ...

    def iteration_s(self, work: Work) -> float:
        """Seconds of one iteration; always positive."""
        ...

    def piece(self, work: Work) -> Piece | None:
        """The linear piece that starts at ``work``; None where the model has none (it is then stepped plainly).

        ``piece(work).first_s == iteration_s(work)``, and repeat j equals ``iteration_s`` of the j-th repeat's work
        to 1e-9 relative, for every j < iterations.
        """
        ...
