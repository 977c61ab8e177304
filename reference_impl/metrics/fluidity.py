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
    for rows in _blocks(counts):
        late[rows] = _late(rebuilt, request[rows], counts[rows], first_due_s[rows], token_s[rows])
    index: Floats = np.divide(counts - late, counts, out=np.full(len(request), np.nan), where=counts > 0)
    return index


def _blocks(counts: Ints) -> Iterator[Ints]:
    """Rows of about equal numbers of tokens together, so that a block is a matrix with little left empty."""
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    while len(order):
        size = max(1, _BLOCK_TOKENS // int(counts[order[-1]]))
        yield order[-size:]
        order = order[:-size]


def _late(rebuilt: TokenLog, request: Ints, counts: Ints, first_due_s: Floats, token_s: Floats) -> Ints:
    """Late tokens of each request of a block."""
    place = np.arange(int(counts.max()))
    inside = place < counts[:, None]
    behind_s = np.full(inside.shape, -np.inf)
    behind_s[inside] = rebuilt.flat_s(request)
    behind_s -= place * token_s[:, None]
    reached_s = np.maximum.accumulate(np.column_stack([first_due_s, behind_s]), axis=1)[:, :-1]
    late: Ints = (behind_s > reached_s + _ROUNDING_S).sum(axis=1)
    return late
