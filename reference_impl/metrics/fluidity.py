"""Fluidity index: the share of a request's tokens that came by their deadlines, with unused slack carried on.

The first token is due D_p after the arrival, each further one D_d after the deadline of the one before it; a token that
misses its deadline is late by itself: the next one is due D_d after it came. So, with T_k the time of token k, a token
is late exactly where T_k - k D_d exceeds D_p after the arrival and all of its predecessors' values: late tokens are the
records of that sequence. D_p and D_d are the TTFT and the TPOT target of the request.

Source: Etalon (Metron), arXiv 2407.07000, and its documentation. Its code counts a long stall as several missed
deadlines; here, as in the formula, one token is one deadline.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reference_impl.metrics.log import Floats, Ints, RunLog
from reference_impl.metrics.requests import RequestTable
from reference_impl.metrics.slo import LoggedSlo, targets
from reference_impl.metrics.token_log import TokenLog

FLUID = 0.9
"""Etalon asks for this index of 99 % of the requests."""
_BLOCK_TOKENS = 2_000_000
_ROUNDING_S = 1e-9


def fluidity(run: RunLog, table: RequestTable, rebuilt: TokenLog | None, slo: LoggedSlo | None) -> dict[str, float]:
    """``fluidity_mean`` and ``fluidity_attainment``; nothing without a target for both the first and further tokens."""
    if slo is None or rebuilt is None or not len(table):
        return {}
    wanted = targets(run, table, slo)
    if np.isinf(wanted.ttft_s).any() or np.isinf(wanted.tpot_s).any():
        return {}
    done = np.flatnonzero(table.finished)
    index = fluidity_index(
        rebuilt, table.request[done], table.arrival_s[done] + wanted.ttft_s[done], wanted.tpot_s[done]
    )
    index = index[~np.isnan(index)]
    mean = {"fluidity_mean": float(index.mean())} if len(index) else {}
    return {**mean, "fluidity_attainment": int((index >= FLUID).sum()) / len(table)}


def fluidity_index(rebuilt: TokenLog, request: Ints, first_due_s: Floats, token_s: Floats) -> Floats:
    """Of each request: its id, when its first token was due, and D_d. NaN without tokens."""
    counts = rebuilt.counts(int(request.max(initial=-1)) + 1)[request]
    late = np.zeros(len(request), np.int64)
    for step_s in sorted(set(token_s[counts > 0].tolist())):
        those = np.flatnonzero((counts > 0) & (token_s == step_s))
        first_s, furthest_s = _behind(rebuilt, request[those], step_s)
        late[those] = first_s > first_due_s[those] + _ROUNDING_S
        level_s = np.maximum(first_due_s[those], first_s)
        later = furthest_s > level_s  # of the others no further token is late
        for block in _blocks(np.where(later, counts[those], 0)):
            rows = those[block]
            late[rows] += _later(rebuilt, request[rows], counts[rows], level_s[block], step_s)
    index: Floats = np.divide(counts - late, counts, out=np.full(len(request), np.nan), where=counts > 0)
    return index


def _behind(rebuilt: TokenLog, request: Ints, step_s: float) -> tuple[Floats, Floats]:
    """T_0 and the greatest T_k - k D_d of each request, without a number for each token."""
    ids, first_item = np.unique(rebuilt.request, return_index=True)
    tokens = np.where(rebuilt.is_slice, rebuilt.high - rebuilt.low, rebuilt.size)
    before = np.cumsum(tokens) - tokens
    before -= np.repeat(before[first_item], np.diff(np.append(first_item, len(tokens))))
    first_s, greatest_s = rebuilt.point_s.copy(), rebuilt.point_s - before * step_s
    inner = np.flatnonzero(rebuilt.is_slice)
    if len(inner):
        inner = inner[np.argsort(rebuilt.low[inner], kind="stable")]  # what lies between two slices is read once
        low, end_s = rebuilt.low[inner], rebuilt.iterations.end_s
        steady_s = np.append(end_s - np.arange(len(end_s)) * step_s, -np.inf)
        bounds = np.column_stack([low, rebuilt.high[inner]]).ravel()
        first_s[inner] = end_s[low]
        greatest_s[inner] = np.maximum.reduceat(steady_s, bounds)[::2] + (low - before[inner]) * step_s
    place = np.searchsorted(ids, request)
    return first_s[first_item][place], np.maximum.reduceat(greatest_s, first_item)[place]


def _blocks(counts: Ints) -> Iterator[Ints]:
    """Rows of about equal numbers of tokens together, so that a block is a matrix with little left empty."""
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    while len(order):
        size = max(1, _BLOCK_TOKENS // int(counts[order[-1]]))
        yield order[-size:]
        order = order[:-size]


def _later(rebuilt: TokenLog, request: Ints, counts: Ints, level_s: Floats, step_s: float) -> Ints:
    """Tokens of each request whose T_k - k D_d exceeds the level and that of all of their predecessors."""
    place = np.arange(int(counts.max()))
    inside = place < counts[:, None]
    behind_s = np.full(inside.shape, -np.inf)
    behind_s[inside] = rebuilt.flat_s(request)
    behind_s -= place * step_s
    reached_s = np.maximum.accumulate(np.column_stack([level_s, behind_s]), axis=1)[:, :-1]
    later: Ints = (behind_s > reached_s + _ROUNDING_S).sum(axis=1)
    return later
