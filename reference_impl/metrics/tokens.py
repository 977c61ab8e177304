"""Every token time of a run, from its run rows, without a loop over tokens.

A lane's decode iterations are expanded once. Each stretch in which a request takes part in the decodes of an instance
is then a slice of that lane's iterations, found by binary search. Times that round to the same nanosecond are one
moment, as in the simulator's order of events, so the last bits of a float decide nothing.

Gaps between tokens inside a stretch are gaps between iterations, counted once with the number of requests that share
them, so the pooled ITL of a million requests costs memory for the iterations, not for the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from reference_impl.metrics.log import LANES, Bools, EventLogError, Floats, Ints, Rows, RunLog
from reference_impl.metrics.statistics import Weighted

_OPENING = ("prefilled", "transfer", "resume")  # the first two lead the events of one moment, see _Stream
_CLOSING = ("preempt", "pause", "finish", "reject")


@dataclass(frozen=True)
class DecodeIterations:
    """Iterations with decodes of all decode lanes, by instance, then by time."""

    start_s: Floats
    end_s: Floats
    instances: Ints
    """Ascending ids."""
    offsets: Ints
    """Instance ``instances[i]`` holds ``offsets[i]`` up to ``offsets[i + 1]``."""


@dataclass(frozen=True)
class TokenLog:
    """Token times as points (a prompt's end yields one token) and slices of iterations, by request, then by time."""

    iterations: DecodeIterations
    request: Ints
    is_slice: Bools
    point_s: Floats
    """Time of the token where the item is a point."""
    low: Ints
    high: Ints
    """Slice of ``iterations.end_s``; empty slices are left out."""

    def times_s(self, request: int) -> Floats:
        """Token times of one request (row number in the trace), ascending."""
        first, last = np.searchsorted(self.request, [request, request + 1])
        parts = [
            self.iterations.end_s[self.low[i] : self.high[i]] if self.is_slice[i] else self.point_s[i : i + 1]
            for i in range(first, last)
        ]
        return np.concatenate([np.empty(0), *parts])

    def counts(self, size: int) -> Ints:
        """Tokens of each request id below ``size``."""
        tokens = np.where(self.is_slice, self.high - self.low, 1)
        return np.bincount(self.request, weights=tokens, minlength=size).astype(np.int64)

    def gaps(self, keep: Bools | None = None) -> Weighted:
        """All gaps between consecutive tokens of a request, pooled; ``keep`` selects by request id."""
        item = np.arange(len(self.request)) if keep is None else np.flatnonzero(keep[self.request])
        inner = item[self.is_slice[item]]
        end_s = self.iterations.end_s
        shared = _covered(self.low[inner] + 1, self.high[inner], len(end_s))[1:]
        first_s, last_s = self.point_s.copy(), self.point_s.copy()
        first_s[inner], last_s[inner] = end_s[self.low[inner]], end_s[self.high[inner] - 1]
        same = self.request[item][1:] == self.request[item][:-1]
        between = (first_s[item][1:] - last_s[item][:-1])[same]
        steps = np.diff(end_s)
        return Weighted.of(np.concatenate([steps, between]), np.concatenate([shared, np.ones(len(between), np.int64)]))

    def emissions(self, keep: Bools | None = None) -> tuple[Floats, Ints]:
        """Moments at which tokens came, unsorted, and how many."""
        item = np.arange(len(self.request)) if keep is None else np.flatnonzero(keep[self.request])
        inner, points = item[self.is_slice[item]], item[~self.is_slice[item]]
        per_iteration = _covered(self.low[inner], self.high[inner], len(self.iterations.end_s))
        times = np.concatenate([self.iterations.end_s, self.point_s[points]])
        return times, np.concatenate([per_iteration, np.ones(len(points), np.int64)])


@lru_cache(maxsize=1)  # the summary, the vLLM JSON and the report of one run share it
def rebuild(run: RunLog) -> TokenLog:
    """Rebuild every token time of the run."""
    iterations = _iterations(run.rows["run"])
    stream = _stream(run)
    same = stream.request[1:] == stream.request[:-1]
    until_s = np.append(np.where(same, stream.ends_before_s[1:], np.inf), np.inf)[: len(stream.request)]
    low, high = _slices(iterations, stream.instance, stream.time_s, until_s)
    high = np.where(stream.kind < len(_OPENING), high, low)
    return _items(iterations, stream, low, high)


def check(run: RunLog, tokens: TokenLog) -> None:
    """Raise EventLogError where a finished request's rebuilt tokens are not as many as its ``finish`` row says."""
    finish = run.rows["finish"]
    ids, said = finish.ints("request"), finish.ints("tokens")
    found = tokens.counts(int(ids.max(initial=-1)) + 1)[ids]
    wrong = np.flatnonzero(found != said)
    if len(wrong):
        first = wrong[0]
        raise EventLogError(
            f"request {ids[first]} finished with {said[first]} tokens, its run rows give {found[first]}"
            f" ({len(wrong)} of {len(ids)} requests differ); the host's run rows and request rows contradict each other"
        )


def _iterations(runs: Rows) -> DecodeIterations:
    lane = runs.ints("lane")
    chosen = np.flatnonzero((lane != LANES.index("prefill")) & (runs.ints("batch") > 0))
    chosen = chosen[np.lexsort((runs.floats("start_s")[chosen], runs.ints("instance")[chosen]))]
    count = runs.ints("iterations")[chosen]
    run = np.repeat(np.arange(len(chosen)), count)
    last = np.cumsum(count) - 1
    step = (np.arange(len(run)) - np.repeat(last + 1 - count, count)).astype(np.float64)
    first_end, step_s, growth_s = (runs.floats(name)[chosen] for name in ("first_end_s", "step_s", "growth_s"))
    end_s = np.nan_to_num(first_end)[run] + step * np.nan_to_num(step_s)[run]
    end_s += np.nan_to_num(growth_s)[run] * step * (step - 1) / 2
    end_s[last] = runs.floats("time_s")[chosen]
    start_s = np.empty_like(end_s)
    start_s[1:] = end_s[:-1]
    start_s[last + 1 - count] = runs.floats("start_s")[chosen]
    instances, first_run = np.unique(runs.ints("instance")[chosen], return_index=True)
    offsets = np.append((last + 1 - count)[first_run], len(end_s)).astype(np.int64)
    return DecodeIterations(start_s, end_s, instances, offsets)


class _Stream(NamedTuple):
    """Events that begin or end a request's part in decodes, by request, then by moment; of one moment, a token or a
    hand-over comes before what ends it (within a nanosecond it may bear the later time), then as logged."""

    request: Ints
    kind: Ints
    """Index into _OPENING + _CLOSING."""
    time_s: Floats
    instance: Ints
    ends_before_s: Floats
    """When the stretch before this event ends: a hand-over leaves the batch when it starts."""


def _stream(run: RunLog) -> _Stream:
    parts = [run.rows[kind] for kind in (*_OPENING, *_CLOSING)]
    request = np.concatenate([part.ints("request") for part in parts])
    kind = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    time_s = np.concatenate([part.floats("time_s") for part in parts])
    instance = [p.ints("instance") if "instance" in p.columns else np.full(len(p), -1) for p in parts]
    before_s = [part.floats("start_s" if part.kind == "transfer" else "time_s") for part in parts]
    row = np.concatenate([part.ints("row") for part in parts])
    order = np.lexsort((row, np.minimum(kind, 2), _moment(time_s), request))
    return _Stream(
        request[order], kind[order], time_s[order], np.concatenate(instance)[order], np.concatenate(before_s)[order]
    )


def _slices(iterations: DecodeIterations, instance: Ints, from_s: Floats, until_s: Floats) -> tuple[Ints, Ints]:
    """Iterations of each stretch: those that start at or after ``from_s`` and end at or before ``until_s``."""
    low = np.zeros(len(instance), np.int64)
    high = np.zeros(len(instance), np.int64)
    earliest, latest = _moment(from_s), _moment(until_s)
    for index, number in enumerate(iterations.instances):
        begin, end = iterations.offsets[index], iterations.offsets[index + 1]
        here = np.flatnonzero(instance == number)
        low[here] = begin + np.searchsorted(_moment(iterations.start_s[begin:end]), earliest[here], side="left")
        high[here] = begin + np.searchsorted(_moment(iterations.end_s[begin:end]), latest[here], side="right")
    return low, np.maximum(low, high)


def _moment(time_s: Floats) -> Floats:
    """The whole nanosecond that a time rounds to: what orders events in the simulator (``simulator/order.py``)."""
    moment: Floats = np.floor(time_s * 1e9 + 0.5)
    return moment


def _items(iterations: DecodeIterations, stream: _Stream, low: Ints, high: Ints) -> TokenLog:
    """A ``prefilled`` row is a point followed by its slice; the other opening rows are slices alone."""
    row = np.repeat(np.arange(len(low)), 2)
    second = np.tile([False, True], len(low))
    kept = np.where(second, (high > low)[row], (stream.kind == _OPENING.index("prefilled"))[row])
    row, second = row[kept], second[kept]
    return TokenLog(iterations, stream.request[row], second, stream.time_s[row], low[row], high[row])


def _covered(low: Ints, high: Ints, size: int) -> Ints:
    """How many of the ranges ``low <= i < high`` hold each i below ``size``."""
    wide = high > low
    change = np.bincount(low[wide], minlength=size + 1) - np.bincount(high[wide], minlength=size + 1)
    return np.cumsum(change[:size]).astype(np.int64)


def token_times(run: RunLog, request: int) -> Floats:
    """Times of one request's tokens in seconds, ascending; ``request`` is its row number in the trace."""
    return rebuild(run).times_s(request)


def itl(run: RunLog) -> Floats:
    """Every gap between two tokens of a finished request in seconds, pooled, ascending: one number per gap.

    For a run of very many tokens ``rebuild(run).gaps()`` says the same in a fraction of the memory.
    """
    finish = run.rows["finish"].ints("request")
    table = rebuild(run)
    finished = np.zeros(int(max(finish.max(initial=-1), table.request.max(initial=-1))) + 1, np.bool_)
    finished[finish] = True
    return table.gaps(finished).expand()
