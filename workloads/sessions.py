"""Turns of sessions: which request a request follows, and the pause of the client in between.

``parent_row`` is the row of the request whose answer this one waited for, -1 where it waited for none; ``think_s`` the
pause between that answer and this request, 0 where there is no parent; ``turn`` the number of the request in its
session, from 0 on. Open loop a turn arrives at its recorded time; what a closed loop does with these columns is said in
:mod:`workloads.closed_loop`. A trace that is cut keeps what it still has, and a request whose parent was cut off has
none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workloads.errors import TraceError
from workloads.validate import refuse_first

if TYPE_CHECKING:
    from workloads.trace import Trace

COLUMNS = ("turn", "parent_row", "think_s")
NO_PARENT = -1
_T = TypeVar("_T", bound=np.generic)
_TURNS_ALLOWED = "integers 0..2147483647"
_THINK_ALLOWED = "finite seconds >= 0"


def settle_columns(trace: Trace) -> None:
    """Check the session columns of ``trace`` and put them in their final types, in place."""
    requests = len(trace.arrival_s)
    if trace.turn is not None:
        turn = _whole(trace.name, "turn", trace.turn, requests, _TURNS_ALLOWED)
        refuse_first(trace.name, "turn", turn, (turn < 0) | (turn > np.iinfo(np.int32).max), _TURNS_ALLOWED)
        object.__setattr__(trace, "turn", _frozen(turn.astype(np.int32)))
    if trace.parent_row is not None:
        parents = _whole(trace.name, "parent_row", trace.parent_row, requests, "rows before this one, or -1")
        late = (parents < NO_PARENT) | (parents >= np.arange(requests))
        refuse_first(trace.name, "parent_row", parents, late, "a row before this one, or -1 for none")
        object.__setattr__(trace, "parent_row", _frozen(parents))
    if trace.think_s is not None:
        object.__setattr__(trace, "think_s", _think(trace, requests))


def _think(trace: Trace, requests: int) -> NDArray[np.float64]:
    if trace.parent_row is None:
        raise TraceError(f"{trace.name}: think_s says how long after its parent a request comes; give parent_row too")
    think = _numbers(trace.name, "think_s", trace.think_s, requests, _THINK_ALLOWED).astype(np.float64)
    refuse_first(trace.name, "think_s", think, ~(np.isfinite(think) & (think >= 0.0)), _THINK_ALLOWED)
    alone = (trace.parent_row == NO_PARENT) & (think > 0.0)
    refuse_first(trace.name, "think_s", think, alone, "0 for a request without a parent")
    return _frozen(think)


def taken(trace: Trace, chosen: NDArray[np.int64]) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    """The session columns of the rows ``chosen`` (ascending, each at most once)."""
    columns: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {}
    if trace.turn is not None:
        columns["turn"] = trace.turn[chosen].astype(np.int64)
    if trace.parent_row is not None:
        parents = moved(trace.parent_row, chosen)
        columns["parent_row"] = parents
        if trace.think_s is not None:
            columns["think_s"] = np.where(parents == NO_PARENT, 0.0, trace.think_s[chosen])
    return columns


def moved(parents: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Parents of the rows ``chosen`` as rows among them; -1 where the parent is not among them."""
    place = np.full(len(parents) + 1, NO_PARENT, dtype=np.int64)  # the last entry is for -1
    place[chosen] = np.arange(len(chosen))
    return place[parents[chosen]]


def describe(trace: Trace) -> dict[str, float]:
    """Sessions, their turns and pauses, in numbers. What the trace does not say is absent."""
    numbers: dict[str, float] = {}
    if trace.session_id is not None:
        named = [name for name in trace.session_id if name]
        numbers["sessions"] = len(set(named))
        if named:
            numbers["session_turns_mean"] = len(named) / len(set(named))
    if trace.parent_row is not None:
        followers = trace.parent_row != NO_PARENT
        numbers["turns_with_a_parent"] = int(followers.sum())
        if trace.think_s is not None and followers.any():
            for name, quantile in {"p50": 0.5, "p90": 0.9}.items():
                numbers[f"think_s_{name}"] = float(np.quantile(trace.think_s[followers], quantile))
    return numbers


def _whole(name: str, column_name: str, values: ArrayLike, requests: int, allowed: str) -> NDArray[np.int64]:
    column = _numbers(name, column_name, values, requests, allowed)
    if column.dtype.kind == "f":
        refuse_first(name, column_name, column, ~(np.floor(column) == column) | (np.abs(column) > 2**53), allowed)
    return column.astype(np.int64)


def _numbers(
    name: str, column_name: str, values: ArrayLike | None, requests: int, allowed: str
) -> NDArray[np.float64] | NDArray[np.int64]:
    try:
        column = np.array(values)
    except (ValueError, OverflowError) as error:
        raise TraceError(f"{name}, column {column_name}: not a column of numbers (allowed: {allowed})") from error
    if column.ndim != 1 or column.dtype.kind not in "if" or len(column) != requests:
        found = f"{column.dtype} of {column.size} values"
        raise TraceError(f"{name}, column {column_name}: {found} (allowed: {requests}, one per arrival: {allowed})")
    return column


def _frozen(column: NDArray[_T]) -> NDArray[_T]:
    column.setflags(write=False)
    return column
