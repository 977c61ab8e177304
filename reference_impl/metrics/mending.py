"""Token times where clients were asked or instances failed: the exceptions that ``reference_impl/events.py`` states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from reference_impl.metrics.log import Bools, EventLogError, Floats, Rows
from reference_impl.metrics.token_log import TokenLog

_MOMENT_S = 0.5e-9
_COLUMNS = ("request", "is_slice", "point_s", "low", "high", "size")


class _Item(NamedTuple):
    """Tokens of a request: ``size`` of them at ``point_s``, or (size 0) iterations ``low`` to ``high``."""

    point_s: float
    size: int
    low: int = 0
    high: int = 0

    @property
    def tokens(self) -> int:
        """How many it holds."""
        return self.size or self.high - self.low


def mended(found: TokenLog, seen: Rows, lost: Rows) -> TokenLog:
    """``found``, with what clients saw in place of it, and cut where requests were lost."""
    if not len(seen) and not len(lost):
        return found
    points = _points(found, seen)
    mixed = np.intersect1d(points.request, found.request)
    special = np.union1d(mixed, lost.ints("request"))
    plain = [_select(log, ~np.isin(log.request, special)) for log in (found, points)]
    return _joined(found, [*plain, *(_mend(found, points, lost, int(request)) for request in special)])


def _points(found: TokenLog, seen: Rows) -> TokenLog:
    """The ``token`` rows; those that bring nothing new are left out."""
    order = np.lexsort((seen.ints("row"), seen.ints("request")))
    request, given, time_s = seen.ints("request")[order], seen.ints("tokens")[order], seen.floats("time_s")[order]
    before = np.where(np.append(-1, request[:-1]) == request, np.append(0, given[:-1]), 0)[: len(request)]
    size = given - before
    if (size < 0).any():
        first = int(np.argmax(size < 0))
        raise EventLogError(f"request {request[first]} was given {before[first]} tokens, and later {given[first]}")
    none = np.zeros(len(size), np.int64)
    points = TokenLog(found.iterations, request, none.astype(np.bool_), time_s, none, none, size)
    return _select(points, size > 0)


def _select(log: TokenLog, keep: Bools) -> TokenLog:
    return replace(log, **{name: getattr(log, name)[keep] for name in _COLUMNS})


def _joined(like: TokenLog, parts: list[TokenLog]) -> TokenLog:
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
    order = np.argsort(columns["request"], kind="stable")
    return replace(like, **{name: column[order] for name, column in columns.items()})


def _mend(found: TokenLog, points: TokenLog, lost: Rows, request: int) -> TokenLog:
    """The items of one request."""
    end_s = found.iterations.end_s
    items = _items(found, request)
    shown = _items(points, request)
    if shown:
        items = [*shown, *(_split(item, shown[-1].point_s, end_s)[1] for item in items)]
    for i in np.flatnonzero(lost.ints("request") == request):
        lost_s, given = float(lost.floats("time_s")[i]), int(lost.ints("tokens")[i])
        if shown and lost_s <= shown[-1].point_s:
            continue
        halves = [_split(item, lost_s, end_s) for item in items]
        before = _first([half for half, _ in halves], given)
        missing = given - sum(item.tokens for item in before)
        items = [*before, _Item(lost_s, missing), *(half for _, half in halves)]
    return _log(found, request, [item for item in items if item.tokens])


def _log(like: TokenLog, request: int, items: list[_Item]) -> TokenLog:
    size, low, high = (np.array([item[i] for item in items], np.int64) for i in (1, 2, 3))
    point_s = np.array([item.point_s for item in items], np.float64)
    return TokenLog(like.iterations, np.full(len(items), request, np.int64), size == 0, point_s, low, high, size)


def _items(log: TokenLog, request: int) -> list[_Item]:
    first, last = np.searchsorted(log.request, [request, request + 1])
    return [
        _Item(0.0, 0, int(log.low[i]), int(log.high[i]))
        if log.is_slice[i]
        else _Item(float(log.point_s[i]), int(log.size[i]))
        for i in range(first, last)
    ]


def _split(item: _Item, time_s: float, end_s: Floats) -> tuple[_Item, _Item]:
    """What came up to a moment, and what came later."""
    nothing = _Item(time_s, 0)
    if item.size:
        return (item, nothing) if item.point_s <= time_s + _MOMENT_S else (nothing, item)
    cut = item.low + int(np.searchsorted(end_s[item.low : item.high], time_s + _MOMENT_S, side="right"))
    return item._replace(high=cut), item._replace(low=cut)


def _first(items: list[_Item], tokens: int) -> list[_Item]:
    """The first ``tokens`` of them."""
    kept = []
    for item in items:
        if item.size:
            kept.append(item._replace(size=min(item.size, tokens)))
        else:
            kept.append(item._replace(high=min(item.high, item.low + tokens)))
        tokens -= kept[-1].tokens
    return kept
