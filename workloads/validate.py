"""What the columns of a trace may hold. Each check returns the column in its final type, read-only, or refuses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workloads.errors import TraceError, refusal

MAX_TOKENS = int(np.iinfo(np.int32).max)
TOKENS_ALLOWED = f"integers 1..{MAX_TOKENS}"
TIMES_ALLOWED = "finite seconds >= 0, ascending"


def arrival_column(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Arrival times in seconds: finite, not negative, ascending (ties allowed), at least one."""
    column = _numbers(name, "arrival_s", values, TIMES_ALLOWED).astype(np.float64)
    if len(column) == 0:
        raise TraceError(f"{name}: no requests (allowed: at least one)")
    wrong = ~(np.isfinite(column) & (column >= 0.0))
    wrong[1:] |= np.diff(np.where(wrong, 0.0, column)) < 0.0
    refuse_first(name, "arrival_s", column, wrong, TIMES_ALLOWED)
    column.setflags(write=False)
    return column


def token_column(name: str, column_name: str, values: ArrayLike, requests: int) -> NDArray[np.int32]:
    """Token counts of ``requests`` requests: whole numbers from 1 on."""
    column = _numbers(name, column_name, values, TOKENS_ALLOWED)
    if len(column) != requests:
        raise TraceError(f"{name}, column {column_name}: {len(column)} values (allowed: one per arrival, {requests})")
    wrong = ~((column >= 1) & (column <= MAX_TOKENS) & (column == np.floor(column)))
    refuse_first(name, column_name, column, wrong, TOKENS_ALLOWED)
    tokens = column.astype(np.int32)
    tokens.setflags(write=False)
    return tokens


def label_column(name: str, column_name: str, values: Sequence[str] | None, requests: int) -> tuple[str, ...] | None:
    """Labels (session, tenant, SLO class) of ``requests`` requests, or None."""
    if values is None:
        return None
    column = tuple(values)
    if isinstance(values, str) or len(column) != requests:
        raise TraceError(f"{name}, column {column_name}: {len(column)} values (allowed: one per arrival, {requests})")
    for row, value in enumerate(column):
        if not isinstance(value, str):
            raise TraceError(refusal(f"{name}, row {row}", column_name, value, "text"))
    return column


def _numbers(name: str, column_name: str, values: ArrayLike, allowed: str) -> NDArray[np.float64] | NDArray[np.int64]:
    try:
        column = np.array(values)
    except (ValueError, OverflowError) as error:
        raise TraceError(f"{name}, column {column_name}: not a column of numbers (allowed: {allowed})") from error
    if column.ndim != 1 or (column.dtype.kind not in "iuf" and column.size):
        shape = "x".join(map(str, column.shape))
        found = f"{column.dtype} of shape {shape}"
        raise TraceError(f"{name}, column {column_name}: {found} is not allowed (allowed: one dimension of {allowed})")
    return column


def refuse_first(
    name: str,
    column_name: str,
    column: NDArray[np.float64] | NDArray[np.int64],
    wrong: NDArray[np.bool_],
    allowed: str,
) -> None:
    """Raises TraceError naming the first row that is wrong, if there is one."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TraceError(refusal(f"{name}, row {row}", column_name, column[row].item(), allowed))
