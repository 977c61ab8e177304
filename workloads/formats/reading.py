"""What a file does not say and its reader must be told: each is a choice of the user, never a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from workloads.errors import TraceError
from workloads.prefix import check_block
from workloads.synthetic.arrivals import Arrivals


@dataclass(frozen=True)
class Reading:
    """How to read a file that lacks something. The defaults refuse such a file with a line that says what to give."""

    arrivals: Arrivals | None = None
    """When the requests of a table of lengths come."""
    sessions_per_s: float | None = None
    """Sessions without a common clock start as a Poisson process of this rate."""
    window_s: tuple[float, float] | None = None
    """The stretch of a client profile to draw requests for, in seconds from its start."""
    block_tokens: int | None = None
    """Tokens per prefix id, where the format leaves it open (JSONL); None: what the format's own traces have."""
    seed: int = 0
    """Of everything that is drawn."""

    def __post_init__(self) -> None:
        if self.sessions_per_s is not None and not (math.isfinite(self.sessions_per_s) and self.sessions_per_s > 0.0):
            raise TraceError(f"sessions per second: {self.sessions_per_s!r} (allowed: finite numbers > 0)")
        if self.window_s is not None:
            start, end = self.window_s
            if not (0.0 <= start < end < math.inf):
                raise TraceError(f"window: {start!r} to {end!r} s (allowed: 0 <= start < end, finite)")
        if self.block_tokens is not None:
            check_block("reading", self.block_tokens)
        if type(self.seed) is not int or self.seed < 0:
            raise TraceError(f"seed: {self.seed!r} (allowed: integers from 0 on)")

    def check_unused(self, source: str, used: str = "seed") -> None:
        """Raise TraceError if more than ``used`` was stated of a trace that leaves nothing else open."""
        unheard = [field.name for field in fields(self) if field.name not in (used, "seed")]
        stated = [name for name in unheard if getattr(self, name) is not None]
        if stated:
            raise TraceError(f"{source}: nothing to state: this trace does not leave {stated[0]} open; leave it out")


AS_IT_IS = Reading()
