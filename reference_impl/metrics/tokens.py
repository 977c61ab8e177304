"""Every token time of a run, from its run rows, without a loop over tokens.

A lane's decode iterations are expanded once. Each stretch in which a request takes part in the decodes of an instance
is then a slice of that lane's iterations, found by binary search. Times that round to the same nanosecond are one
moment, as in the simulator's order of events, so the last bits of a float decide nothing.

Gaps between tokens inside a stretch are gaps between iterations, counted once with the number of requests that share
them, so the pooled ITL of a million requests costs memory for the iterations, not for the tokens.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from reference_impl.metrics.log import LANES, EventLogError, Floats, Ints, Rows, RunLog
from reference_impl.metrics.mending import mended
from reference_impl.metrics.token_log import DecodeIterations, TokenLog

_OPENING = ("prefilled", "transfer", "join", "resume")  # the first two lead the events of one moment, see _Stream
_CLOSING = ("preempt", "pause", "lost", "dispatch", "finish", "reject")
_LAST = (*_OPENING, *_CLOSING).index("finish")


@lru_cache(maxsize=1)  # the summary, the vLLM JSON and the report of one run share it
def rebuild(run: RunLog) -> TokenLog:
    """Rebuild every token time of the run."""
    iterations = _iterations(run.rows["run"])
    stream = _stream(run)
    same = stream.request[1:] == stream.request[:-1]
    until_s = np.append(np.where(same, stream.ends_before_s[1:], np.inf), np.inf)[: len(stream.request)]
    low, high = _slices(iterations, stream.instance, stream.time_s, until_s)
    prefilled, transfer, join = (_OPENING.index(kind) for kind in ("prefilled", "transfer", "join"))
    handed_over = (stream.kind[:-1] == prefilled) & (stream.kind[1:] == transfer)
    decodes_later = np.append(same & ((stream.kind[1:] == join) | handed_over), False)[: len(stream.request)]
    high = np.where((stream.kind < len(_OPENING)) & ~decodes_later, high, low)
    return mended(_items(iterations, stream, low, high), run.rows["token"], run.rows["lost"])


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


def iteration_ends_s(runs: Rows, chosen: Ints) -> Floats:
    """When every iteration of the run rows ``chosen`` ends, row by row (the formula: ``reference_impl/events.py``)."""
    count = runs.ints("iterations")[chosen]
    run = np.repeat(np.arange(len(chosen)), count)
    last = np.cumsum(count) - 1
    step = (np.arange(len(run)) - np.repeat(last + 1 - count, count)).astype(np.float64)
    first_end, step_s, growth_s = (runs.floats(name)[chosen] for name in ("first_end_s", "step_s", "growth_s"))
    end_s = np.nan_to_num(first_end)[run] + step * np.nan_to_num(step_s)[run]
    end_s += np.nan_to_num(growth_s)[run] * step * (step - 1) / 2
    end_s[last] = runs.floats("time_s")[chosen]
    return end_s


def _iterations(runs: Rows) -> DecodeIterations:
    lane = runs.ints("lane")
    chosen = np.flatnonzero((lane != LANES.index("prefill")) & (runs.ints("batch") > 0))
    chosen = chosen[np.lexsort((runs.floats("start_s")[chosen], runs.ints("instance")[chosen]))]
    end_s = iteration_ends_s(runs, chosen)
    count = runs.ints("iterations")[chosen]
    last = np.cumsum(count) - 1
    start_s = np.empty_like(end_s)
    start_s[1:] = end_s[:-1]
    start_s[last + 1 - count] = runs.floats("start_s")[chosen]
    instances, first_run = np.unique(runs.ints("instance")[chosen], return_index=True)
    offsets = np.append((last + 1 - count)[first_run], len(end_s)).astype(np.int64)
    return DecodeIterations(start_s, end_s, instances, offsets)


class _Stream(NamedTuple):
    """Events that begin or end a request's part in decodes, by request, then by moment; of one moment, a token or a
    hand-over comes before what ends it (within a nanosecond it may bear the later time), the end of all comes last, and
    the others in between, as logged."""

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
    rank = np.where(kind < _LAST, np.minimum(kind, 2), 3)
    order = np.lexsort((row, rank, _moment(time_s), request))
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
    """The whole nanosecond that a time rounds to: what orders events (``core/moments.py``)."""
    moment: Floats = np.floor(time_s * 1e9 + 0.5)
    return moment


def _items(iterations: DecodeIterations, stream: _Stream, low: Ints, high: Ints) -> TokenLog:
    """A ``prefilled`` row is a point followed by its slice; the other opening rows are slices alone."""
    row = np.repeat(np.arange(len(low)), 2)
    second = np.tile([False, True], len(low))
    kept = np.where(second, (high > low)[row], (stream.kind == _OPENING.index("prefilled"))[row])
    row, second = row[kept], second[kept]
    one = np.ones(len(row), np.int64)
    return TokenLog(iterations, stream.request[row], second, stream.time_s[row], low[row], high[row], one)


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
