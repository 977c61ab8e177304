"""What became of each request: one row per arrived request, in the order of arrival."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from reference_impl.metrics.log import Bools, EventLogError, Floats, Ints, Rows, RunLog

Outcome = Literal["finished", "rejected", "unfinished"]


@dataclass(frozen=True)
class RequestTable:
    """Columns of equal length, by arrival. Times in seconds since the run's start; NaN: it never happened."""

    request: Ints
    """Row number in the trace."""
    arrival_s: Floats
    prompt_tokens: Ints
    first_token_s: Floats
    finish_s: Floats
    output_tokens: Ints
    """Of finished requests; 0 for the others."""
    cached_tokens: Ints
    """Prompt tokens found in the prefix cache at the first admission; 0 where there was none."""
    preemptions: Ints
    finished: Bools
    rejected: Bools
    admitted_s: Floats
    """When an instance first took it into its batch."""
    path_offsets: Ints
    path_instances: Ints

    def __len__(self) -> int:
        return len(self.request)

    @cached_property
    def admitted(self) -> Bools:
        """Whether an instance took it into its batch."""
        return ~np.isnan(self.admitted_s)

    @cached_property
    def ttft_s(self) -> Floats:
        """First token minus arrival at the front door."""
        return self.first_token_s - self.arrival_s

    @cached_property
    def e2e_s(self) -> Floats:
        """Last token minus arrival at the front door, of finished requests."""
        return self.finish_s - self.arrival_s

    @cached_property
    def tpot_s(self) -> Floats:
        """(last - first) / (n - 1) of finished requests; NaN for n = 1."""
        gaps = np.where(self.finished & (self.output_tokens > 1), self.output_tokens - 1, 0)
        span = self.finish_s - self.first_token_s
        tpot_s: Floats = np.divide(span, gaps, out=np.full(len(self), np.nan), where=gaps > 0)
        return tpot_s

    def outcome(self, position: int) -> Outcome:
        """How the request at this row ended."""
        if self.finished[position]:
            return "finished"
        return "rejected" if self.rejected[position] else "unfinished"

    def path(self, position: int) -> tuple[int, ...]:
        """The instances that it was sent to, in order: dispatches and hand-overs."""
        return tuple(self.path_instances[self.path_offsets[position] : self.path_offsets[position + 1]].tolist())


@lru_cache(maxsize=1)  # the summary, the vLLM JSON and the report of one run share it
def per_request(run: RunLog) -> RequestTable:
    """Build the table. Raises EventLogError for an event of a request that never arrived, or that arrived twice."""
    arrive = run.rows["arrive"]
    position, size = _positions(arrive), len(arrive)
    finish_s, output_tokens = _last(position, run.rows["finish"], size)
    admitted_s, cached_tokens = _first(position, run.rows["admit"], size)
    finished = ~np.isnan(finish_s)
    offsets, instances = _paths(run, position, size)
    return RequestTable(
        request=arrive.ints("request"),
        arrival_s=arrive.floats("time_s"),
        prompt_tokens=arrive.ints("tokens"),
        first_token_s=_first_tokens(run, position, size),
        finish_s=finish_s,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
        preemptions=_count(position, run.rows["preempt"], size),
        finished=finished,
        rejected=(_count(position, run.rows["reject"], size) > 0) & ~finished,
        admitted_s=admitted_s,
        path_offsets=offsets,
        path_instances=instances,
    )


def _positions(arrive: Rows) -> Ints:
    """Row in the table of each request id; -1: never arrived."""
    ids = arrive.ints("request")
    position = np.full(int(ids.max(initial=-1)) + 1, -1, np.int64)
    position[ids] = np.arange(len(ids))
    twice = np.flatnonzero(position[ids] != np.arange(len(ids)))
    if len(twice):
        raise EventLogError(f"request {ids[twice[0]]} arrives twice in the event log")
    return position


def _of(position: Ints, rows: Rows) -> Ints:
    """Row in the table of each event."""
    ids = rows.ints("request")
    known = ids < len(position)
    found = np.where(known, position[np.where(known, ids, 0)] if len(position) else -1, -1)
    if (found < 0).any():
        raise EventLogError(f"{rows.kind} of request {ids[int(np.argmax(found < 0))]}, which never arrived")
    return found


def _first(position: Ints, rows: Rows, size: int) -> tuple[Floats, Ints]:
    """Time (NaN: none) and tokens (0: none) of each request's first event of a kind."""
    where, index = np.unique(_of(position, rows), return_index=True)
    time_s, tokens = np.full(size, np.nan), np.zeros(size, np.int64)
    time_s[where], tokens[where] = rows.floats("time_s")[index], rows.ints("tokens")[index]
    return time_s, tokens


def _first_tokens(run: RunLog, position: Ints, size: int) -> Floats:
    """As ``events.py`` counts tokens: what a client saw stands in place of what instances say."""
    seen_s, _ = _first(position, run.rows["token"], size)
    prefilled_s, _ = _first(position, run.rows["prefilled"], size)
    lost = run.rows["lost"]
    lost_s, _ = _first(position, lost.select(lost.ints("tokens") > 0), size)
    first_token_s: Floats = np.where(np.isnan(seen_s), np.fmin(prefilled_s, lost_s), seen_s)
    return first_token_s


def _last(position: Ints, rows: Rows, size: int) -> tuple[Floats, Ints]:
    """The same of each request's last event of a kind."""
    where = _of(position, rows)
    time_s, tokens = np.full(size, np.nan), np.zeros(size, np.int64)
    time_s[where], tokens[where] = rows.floats("time_s"), rows.ints("tokens")
    return time_s, tokens


def _count(position: Ints, rows: Rows, size: int) -> Ints:
    return np.bincount(_of(position, rows), minlength=size).astype(np.int64)


def _paths(run: RunLog, position: Ints, size: int) -> tuple[Ints, Ints]:
    parts = [run.rows["dispatch"], run.rows["transfer"]]
    who = np.concatenate([_of(position, part) for part in parts])
    order = np.lexsort((np.concatenate([part.ints("row") for part in parts]), who))
    offsets = np.concatenate(([0], np.cumsum(np.bincount(who, minlength=size)))).astype(np.int64)
    return offsets, np.concatenate([part.ints("instance") for part in parts])[order]
