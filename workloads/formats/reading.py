"""What a file does not say and its reader must be told: each is a choice of the user, never a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass

from workloads.errors import TraceError
from workloads.prefix import check_block
from workloads.synthetic.arrivals import Arrivals

_FOR = {
    "arrivals": ("--arrivals", "lengths without times: NanoFlow's and Vidur's CSV, parquet without arrival_s"),
    "sessions_per_s": ("--session-rate", "several sessions of kv-cache-tester"),
    "window_s": ("--window", "ServeGen's client profiles"),
    "block_tokens": ("--read-blocks", "JSONL of Mooncake or Bailian"),
    "seed": ("--seed", "what is drawn: lengths without times, several sessions, client profiles"),
}
"""Choice -> its flag of ``semiflow workloads convert``, and the formats that honour it."""


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
    seed: int | None = None
    """Of everything that is drawn; None: 0."""

    def __post_init__(self) -> None:
        if self.sessions_per_s is not None and not (math.isfinite(self.sessions_per_s) and self.sessions_per_s > 0.0):
            raise TraceError(f"sessions per second: {self.sessions_per_s!r} (allowed: finite numbers > 0)")
        if self.window_s is not None:
            start, end = self.window_s
            if not (0.0 <= start < end < math.inf):
                raise TraceError(f"window: {start!r} to {end!r} s (allowed: 0 <= start < end, finite)")
        if self.block_tokens is not None:
            check_block("reading", self.block_tokens)
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise TraceError(f"seed: {self.seed!r} (allowed: integers from 0 on)")

    @property
    def random_seed(self) -> int:
        """What everything that is drawn is drawn by."""
        return self.seed or 0

    def check(self, source: str, format_: str, *honoured: str) -> None:
        """Raise TraceError if anything but ``honoured`` (names of fields) was chosen for a file of ``format_``."""
        for choice, (flag, meant_for) in _FOR.items():
            if choice not in honoured and getattr(self, choice) is not None:
                raise TraceError(
                    f"{source}: {format_}, which does not honour {flag}; leave it out ({flag} is for {meant_for})"
                )


AS_IT_IS = Reading()
