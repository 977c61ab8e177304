"""BurstGPT: CSV with ``Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type``, read by column name.

The later files add ``Session ID`` and ``Elapsed time``. Timestamps are seconds of a local clock; times count from the
first row that is kept. Failed requests have 0 response tokens, so they are invalid rows. A row of a session follows the
row before it if it came after that one's answer (its timestamp plus its elapsed time); the rest of the gap is the
client's pause. ``Model``, ``Total tokens`` (the sum of the two others) and ``Log Type`` are not read.
Source: github.com/HPMLL/BurstGPT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from workloads.formats.columns import Columns
from workloads.formats.csv_lines import CsvFile, seconds_cell, token_cell
from workloads.sessions import NO_PARENT
from workloads.settle import BadRow, Invalid, RawRows, settle
from workloads.trace import Trace
from workloads.validate import MAX_TOKENS

NEEDED = ("Timestamp", "Request tokens", "Response tokens")
_OPTIONAL = ("Session ID", "Elapsed time")
_COLUMNS = dict(zip(("arrival_s", "prompt_tokens", "output_tokens"), NEEDED, strict=True))


class _Last(NamedTuple):
    """The request of a session that came last."""

    line: int
    turn: int
    answered_s: float | None


def parse(source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid) -> Trace:
    """The trace in ``data``. Raises TraceError naming ``source``, line, column, value and what is allowed."""
    file = CsvFile(source, data, NEEDED, _OPTIONAL)
    columns = Columns()
    sessions: dict[str, _Last] = {}
    for number, line in file.rows():
        try:
            _take(file, number, file.cells(line), columns, sessions)
        except BadRow as bad:
            columns.note(number, bad)
    raw = RawRows(source, source_columns=_COLUMNS, from_zero=False)
    return settle(columns.raw(raw), name, metadata, invalid)


def _take(file: CsvFile, number: int, cells: list[str], columns: Columns, sessions: dict[str, _Last]) -> None:
    at_s = seconds_cell("Timestamp", cells[file.place["Timestamp"]])
    prompt, output = (token_cell(column, cells[file.place[column]]) for column in NEEDED[1:])
    if "Session ID" not in file.place:
        columns.add(number, at_s, prompt, output)
        return
    elapsed = cells[file.place["Elapsed time"]].strip() if "Elapsed time" in file.place else ""
    answered_s = at_s + seconds_cell("Elapsed time", elapsed) if elapsed else None
    session = cells[file.place["Session ID"]].strip()
    columns.add(number, at_s, prompt, output)
    if not session:
        columns.add_turn("", 0)
        return
    last = sessions.get(session)
    turn = 0 if last is None else last.turn + 1
    follows = last is not None and last.answered_s is not None and last.answered_s <= at_s
    if last is not None and last.answered_s is not None and follows:
        columns.add_turn(session, turn, last.line, at_s - last.answered_s)
    else:
        columns.add_turn(session, turn, NO_PARENT)
    if 1 <= output <= MAX_TOKENS:  # nobody follows a failure
        sessions[session] = _Last(number, turn, answered_s)
