"""From the rows of a file to a trace.

Rows that no serving system could have produced are refused or dropped by choice, and counted either way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workloads import prefix, sessions
from workloads.errors import TraceError, refusal, shown
from workloads.trace import Trace
from workloads.validate import MAX_TOKENS, TOKENS_ALLOWED

Invalid = Literal["error", "drop"]
_EXAMPLES = 3


class Problem(NamedTuple):
    """Why one row cannot be used."""

    row: int
    """Line number (text files, from 1) or row number (parquet, from 0)."""
    column: str
    value: object
    allowed: str


class BadRow(Exception):  # noqa: N818 - it never leaves this package: it is a problem found while a row is parsed
    """Raised by a reader's row parser."""

    def __init__(self, column: str, value: object, allowed: str) -> None:
        super().__init__(column)
        self.column, self.value, self.allowed = column, value, allowed


@dataclass
class RawRows:
    """What a reader could parse, one entry per row in each list, and the rows that it could not."""

    source: str
    """Name of the file, for messages."""
    row_word: str = "line"
    source_columns: Mapping[str, str] = field(default_factory=dict)
    """Our name of a column -> the file's, where they differ."""
    from_zero: bool = True
    """Times count from a start that the file states; else (calendar time) from the first row that is kept."""
    block_tokens: int | None = None
    label: list[int] | NDArray[np.int64] = field(default_factory=list)
    arrival_s: list[float] | NDArray[np.float64] = field(default_factory=list)
    prompt_tokens: list[int] | NDArray[np.int64] = field(default_factory=list)
    output_tokens: list[int] | NDArray[np.int64] = field(default_factory=list)
    prefix_ids: list[tuple[int, ...]] | None = None
    labels: dict[str, list[str]] = field(default_factory=dict)
    """session_id, tenant, slo_class where the file has them."""
    turn: list[int] | NDArray[np.int64] | None = None
    parent: list[int] | NDArray[np.int64] | None = None
    """Per row the label of its parent, -1 for none. A parent that is not kept leaves its followers without one."""
    think_s: list[float] | NDArray[np.float64] | None = None
    problems: list[Problem] = field(default_factory=list)
    counted: bool = True
    """Whether the number of rows goes into the metadata even where none is invalid."""

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Leave out all parsed rows but ``rows``."""
        self.label = np.asarray(self.label)[rows]
        self.arrival_s = np.asarray(self.arrival_s, dtype=np.float64)[rows]
        self.prompt_tokens = np.asarray(self.prompt_tokens, dtype=np.int64)[rows]
        self.output_tokens = np.asarray(self.output_tokens, dtype=np.int64)[rows]
        if self.prefix_ids is not None:
            self.prefix_ids = [self.prefix_ids[row] for row in rows.tolist()]
        self.labels = {column: [values[row] for row in rows.tolist()] for column, values in self.labels.items()}
        if self.turn is not None:
            self.turn = np.asarray(self.turn, dtype=np.int64)[rows]
        if self.parent is not None:
            self.parent = np.asarray(self.parent, dtype=np.int64)[rows]
        if self.think_s is not None:
            self.think_s = np.asarray(self.think_s, dtype=np.float64)[rows]


def check_invalid(invalid: str) -> None:
    """Refuse anything but ``error`` and ``drop``."""
    if invalid not in ("error", "drop"):
        raise TraceError(f"invalid={invalid!r} (allowed: 'error' to refuse invalid rows, 'drop' to leave them out)")


def settle(raw: RawRows, name: str, metadata: Mapping[str, str], invalid: Invalid) -> Trace:
    """The trace of ``raw``: one invalid row raises (``error``), or all are left out and counted (``drop``)."""
    total = len(raw.label) + len(raw.problems)
    if total == 0:
        raise TraceError(f"{raw.source}: no requests (allowed: at least one)")
    _drop_invalid(raw)
    problems = sorted(raw.problems, key=lambda problem: problem.row)
    if problems and invalid == "error":
        raise TraceError(_refuse(raw, problems, total))
    arrivals = np.asarray(raw.arrival_s, dtype=np.float64)
    if len(arrivals) == 0:
        raise TraceError(f"{_refuse(raw, problems, total)}; dropping them leaves none")
    parents, think_s, orphans = _parents(raw)
    return Trace(
        name=name,
        arrival_s=arrivals if raw.from_zero else arrivals - arrivals[0],
        prompt_tokens=np.asarray(raw.prompt_tokens),
        output_tokens=np.asarray(raw.output_tokens),
        prefix_ids=None if raw.prefix_ids is None else tuple(raw.prefix_ids),
        prefix_block_tokens=raw.block_tokens,
        metadata=dict(metadata) | _count(raw, problems, total) | orphans,
        turn=None if raw.turn is None else np.asarray(raw.turn),
        parent_row=parents,
        think_s=think_s,
        **{column: tuple(values) for column, values in raw.labels.items()},
    )


class _Parents(NamedTuple):
    rows: NDArray[np.int64] | None
    think_s: NDArray[np.float64] | None
    notes: dict[str, str]


def _parents(raw: RawRows) -> _Parents:
    """Parents as rows, and what is to be said of those that are missing: their followers begin anew."""
    if raw.parent is None:
        return _Parents(None, None, {})
    place = {label: row for row, label in enumerate(np.asarray(raw.label).tolist())}
    wanted = np.asarray(raw.parent, dtype=np.int64)
    rows = np.array([place.get(label, sessions.NO_PARENT) for label in wanted.tolist()], dtype=np.int64)
    rows[rows >= np.arange(len(rows))] = sessions.NO_PARENT  # at one time, or later: nothing to wait for
    missing = np.flatnonzero((wanted != sessions.NO_PARENT) & (rows == sessions.NO_PARENT))
    think_s = None
    if raw.think_s is not None:
        think_s = np.where(rows == sessions.NO_PARENT, 0.0, np.asarray(raw.think_s, dtype=np.float64))
    if missing.size == 0:
        return _Parents(rows, think_s, {})
    first = int(missing[0])
    text = (
        f"{missing.size} turns follow a request that is not in this trace (first: {raw.row_word} "
        f"{np.asarray(raw.label)[first]}); they stand for themselves"
    )
    return _Parents(rows, think_s, {"missing_parents": text})


def _count(raw: RawRows, problems: list[Problem], total: int) -> dict[str, str]:
    if not problems and not raw.counted:
        return {}
    count = {"rows": str(total), "rows_dropped": str(len(problems))}
    if problems:
        count["rows_dropped_examples"] = "; ".join(_one(raw, problem) for problem in problems[:_EXAMPLES])
    return count


def _one(raw: RawRows, problem: Problem) -> str:
    column = _column(raw, problem.column)
    return f"{raw.row_word} {problem.row}: {column}={shown(problem.value)} (allowed: {problem.allowed})"


def _column(raw: RawRows, column: str) -> str:
    """Our name of the column, and the file's in brackets."""
    theirs = raw.source_columns.get(column)
    return f"{column} ({theirs})" if theirs else column


def _refuse(raw: RawRows, problems: list[Problem], total: int) -> str:
    first = problems[0]
    column = _column(raw, first.column)
    text = refusal(f"{raw.source}, {raw.row_word} {first.row}", column, first.value, first.allowed)
    remedy = "fix them or leave them out with invalid='drop' (--invalid drop)"
    return f"{text}; {len(problems)} of {total} rows are invalid: {remedy}"


def _drop_invalid(raw: RawRows) -> None:
    """Move the rows that cannot be used to ``raw.problems``."""
    _drop_out_of_range(raw)
    _drop_out_of_order(raw)
    if raw.prefix_ids is not None:
        _drop_unchained(raw)


def _drop_out_of_range(raw: RawRows) -> None:
    arrivals = np.asarray(raw.arrival_s, dtype=np.float64)
    usable = np.ones(len(arrivals), dtype=np.bool_)
    in_time = np.isfinite(arrivals) & ((arrivals >= 0.0) | (not raw.from_zero))
    checks: list[tuple[str, NDArray[np.float64] | NDArray[np.int64], NDArray[np.bool_], str]] = [
        ("arrival_s", arrivals, in_time, "finite seconds >= 0")
    ]
    for column, values in (("prompt_tokens", raw.prompt_tokens), ("output_tokens", raw.output_tokens)):
        tokens = np.asarray(values, dtype=np.int64)
        checks.append((column, tokens, (tokens >= 1) & (tokens <= MAX_TOKENS), TOKENS_ALLOWED))
    for column, numbers, fine, allowed in checks:
        for row in np.flatnonzero(usable & ~fine).tolist():
            raw.problems.append(Problem(int(raw.label[row]), column, numbers[row].item(), allowed))
        usable &= fine
    raw.keep(np.flatnonzero(usable))


def _drop_out_of_order(raw: RawRows) -> None:
    times = np.asarray(raw.arrival_s, dtype=np.float64)
    if not (np.diff(times) < 0.0).any():
        return
    ordered = longest_ascending(times.tolist())
    allowed = "ascending times; this row is out of order with the rows around it"
    for row in np.flatnonzero(~ordered).tolist():
        raw.problems.append(Problem(int(raw.label[row]), "arrival_s", times[row].item(), allowed))
    raw.keep(np.flatnonzero(ordered))


def longest_ascending(times: list[float]) -> NDArray[np.bool_]:
    """Which entries to keep so that the fewest are lost and the rest ascends (ties allowed).

    Patience sorting, from the end: among equally good choices the row that goes back in time is the one to leave out.
    """
    ends: list[float] = []
    end_rows: list[int] = []
    following: list[int] = [-1] * len(times)
    for row in reversed(range(len(times))):
        length = bisect_right(ends, -times[row])
        following[row] = end_rows[length - 1] if length else -1
        ends[length : length + 1] = [-times[row]]
        end_rows[length : length + 1] = [row]
    keep = np.zeros(len(times), dtype=np.bool_)
    row = end_rows[-1] if end_rows else -1
    while row >= 0:
        keep[row] = True
        row = following[row]
    return keep


def _drop_unchained(raw: RawRows) -> None:
    """Leave out requests whose ids contradict an earlier request's, until none does."""
    allowed = "chained ids: each id always follows the same one"
    while raw.prefix_ids:
        wrong = prefix.unchained(prefix.flatten(raw.source, raw.prefix_ids))
        if not wrong.any():
            break
        for row in np.flatnonzero(wrong).tolist():
            raw.problems.append(Problem(int(raw.label[row]), "prefix_ids", raw.prefix_ids[row], allowed))
        raw.keep(np.flatnonzero(~wrong))
