"""Rows of a log that several processes wrote: as one process would have logged them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reference_impl.events import FLEET_KINDS, ROW_FIELDS
from reference_impl.metrics.log import Rows

_TOLERANCE_S = 1e-9
"""Within a nanosecond a log may go back: that is one moment."""


def in_order(rows: Mapping[str, Rows]) -> Mapping[str, Rows]:
    """The rows by time and, within one time, by kind, their places counted anew; as they are where that is so."""
    size = sum(len(part) for part in rows.values())
    time_s = np.empty(size)
    for part in rows.values():
        time_s[part.ints("row")] = part.floats("time_s")
    if not (time_s[1:] < time_s[:-1] - _TOLERANCE_S).any():
        return rows
    lists = list(ROW_FIELDS)
    rank = np.empty(size, np.int64)
    for kind, part in rows.items():
        rank[part.ints("row")] = lists.index(_list_of(kind))
    place = np.empty(size, np.int64)
    place[np.lexsort((np.arange(size), rank, time_s))] = np.arange(size)
    return {kind: _placed(part, place) for kind, part in rows.items()}


def _list_of(kind: str) -> str:
    if kind in ROW_FIELDS:
        return kind
    return "fleet" if kind in FLEET_KINDS else "change"


def _placed(part: Rows, place: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Rows:
    moved = Rows(part.kind, {**part.columns, "row": place[part.ints("row")]})
    return moved.select(np.argsort(moved.ints("row")))
