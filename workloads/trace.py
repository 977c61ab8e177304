"""The trace: requests that arrive open loop (at recorded times, whatever the system does), one column per property."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from workloads import prefix, resample, transform
from workloads.errors import TraceError


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """Requests in the order of their arrival. Columns are copied, checked and made read-only on construction.

    Raises :class:`TraceError` naming column, row (counted from 0), value and what is allowed. Every method that changes
    something returns a new trace with its columns aligned and the change appended to ``metadata["transformations"]``.
    """

    name: str
    arrival_s: NDArray[np.float64]
    """Seconds, finite, >= 0, ascending; ties are allowed."""
    prompt_tokens: NDArray[np.int32]
    """The whole prompt, history and shared prefix included; >= 1."""
    output_tokens: NDArray[np.int32]
    """Generated tokens, reasoning included; >= 1."""
    prefix_ids: prefix.PrefixIds | None = None
    """Per request the chained ids of its first blocks (see workloads/prefix.py); never more than it has blocks."""
    prefix_block_tokens: int | None = None
    """Prompt tokens per prefix id."""
    session_id: tuple[str, ...] | None = None
    tenant: tuple[str, ...] | None = None
    slo_class: tuple[str, ...] | None = None
    turn: NDArray[np.int32] | None = None
    """Number of the request in its session, from 0 on (see workloads/sessions.py)."""
    parent_row: NDArray[np.int64] | None = None
    """Row of the request whose answer this one waited for, always an earlier one; -1 for none."""
    think_s: NDArray[np.float64] | None = None
    """The client's pause between that answer and this request; 0 without a parent."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Provenance: source_url, sha256, licence, rows dropped, transformations applied. Text only."""

    def __post_init__(self) -> None:
        transform.settle_columns(self)
        object.__setattr__(self, "metadata", dict(self.metadata))
        if (self.prefix_ids is None) != (self.prefix_block_tokens is None):
            raise TraceError(f"{self.name}: prefix_ids and prefix_block_tokens come together or not at all")
        if self.prefix_ids is not None:
            block = prefix.check_block(self.name, self.prefix_block_tokens)
            ids = prefix.check(self.name, self.prefix_ids, self.prompt_tokens, block)
            object.__setattr__(self, "prefix_ids", ids)

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __repr__(self) -> str:
        return f"Trace({self.name!r}, {len(self)} requests, {self.duration_s:.1f} s)"

    @property
    def duration_s(self) -> float:
        """From the first arrival to the last; 0 for one request."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def mean_rate_rps(self) -> float | None:
        """One over the mean gap between arrivals; None where there is no gap (one request, or all at one time)."""
        return (len(self) - 1) / self.duration_s if self.duration_s > 0.0 else None

    # The verbs live in transform.py (what is kept, when it comes) and resample.py (chance).

    def slice(self, first: int, count: int) -> Trace:
        """At most ``count`` requests from row ``first`` on, at their recorded times."""
        return transform.rows(self, first, count)

    def head(self, count: int) -> Trace:
        """The first ``count`` requests, or all where there are fewer."""
        return transform.head(self, count)

    def window(self, start_s: float, end_s: float) -> Trace:
        """The requests that arrive in [start_s, end_s), with ``start_s`` as the new time 0."""
        return transform.window(self, start_s, end_s)

    def shift(self, by_s: float) -> Trace:
        """Every arrival ``by_s`` later."""
        return transform.shift(self, by_s)

    def scale_rate(self, factor: float) -> Trace:
        """The same requests ``factor`` times as fast: arrival times divided by ``factor``."""
        return transform.scale_rate(self, factor)

    def clip_total_tokens(self, limit: int) -> Trace:
        """Shorten prompts (first, then outputs) so that prompt + output <= ``limit``; both keep at least 1 token."""
        return transform.clip_total_tokens(self, limit)

    def with_block_tokens(self, block_tokens: int) -> Trace:
        """Prefix ids for blocks of another size where that is exact (see workloads/blocks.py)."""
        return transform.with_block_tokens(self, block_tokens)

    def with_slo_classes(self, class_of: Mapping[str, str]) -> Trace:
        """Requests of each tenant in the SLO class that ``class_of`` names for it."""
        return transform.with_slo_classes(self, class_of)

    def spread_ties(self, period_s: float, rng: np.random.Generator) -> Trace:
        """Requests recorded at one time spread evenly at random over the ``period_s`` that follow it.

        For logs whose clock ticks slowly (Mooncake's conversation trace: every 3 s); the order stays.
        """
        return resample.spread_ties(self, period_s, rng)

    def sample(self, count: int, rng: np.random.Generator) -> Trace:
        """``count`` distinct requests at their recorded times (the rate falls accordingly)."""
        return resample.sample(self, count, rng)

    def retime_poisson(self, rate_rps: float, rng: np.random.Generator) -> Trace:
        """The same requests in the same order, as a Poisson process of ``rate_rps``."""
        return resample.retime_poisson(self, rate_rps, rng)

    def bootstrap(self, count: int, rate_rps: float, rng: np.random.Generator) -> Trace:
        """``count`` requests drawn with replacement, in random order, as a Poisson process of ``rate_rps``."""
        return resample.bootstrap(self, count, rate_rps, rng)

    def resample_blocks(self, seed: int, block_s: float) -> Trace:
        """A block bootstrap in time: recorded arrivals that vary with ``seed`` (see workloads/resample.py)."""
        return resample.resample_blocks(self, seed, block_s)
