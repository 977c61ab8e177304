"""Text files of comma-separated cells whose first line names the columns. No quotes: none of these formats has them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from workloads.errors import TraceError, shown
from workloads.formats.json_lines import text_lines
from workloads.settle import BadRow
from workloads.validate import TOKENS_ALLOWED

_MAX_DIGITS = 18


class CsvFile:
    """The lines of a file and where its columns are."""

    def __init__(self, source: str, data: bytes, needed: Sequence[str], optional: Sequence[str] = ()) -> None:
        self.lines = text_lines(data)
        header = self.lines[0].removesuffix("\r") if self.lines else ""
        self.columns = [cell.strip() for cell in header.split(",")]
        missing = [column for column in needed if column not in self.columns]
        twice = [column for column in (*needed, *optional) if self.columns.count(column) > 1]
        if missing or twice:
            problem = f"lacks {', '.join(missing)}" if missing else f"names {', '.join(twice)} twice"
            raise TraceError(f"{source}, line 1: {shown(header)} {problem} (needed: {', '.join(needed)})")
        self.place = {column: self.columns.index(column) for column in (*needed, *optional) if column in self.columns}

    def rows(self) -> Iterator[tuple[int, str]]:
        """Line number, from 2 on, and text of each line after the header."""
        for number, line in enumerate(self.lines[1:], start=2):
            yield number, line.removesuffix("\r")

    def cells(self, line: str) -> list[str]:
        """The cells of a line. Raises BadRow where they are not as many as the header's."""
        cells = line.split(",")
        if len(cells) != len(self.columns):
            raise BadRow("row", line, f"{len(self.columns)} cells: {','.join(self.columns)}")
        return cells


def header_of(data: bytes) -> list[str]:
    """The column names in the first line."""
    first = data[:4096].split(b"\n", 1)[0].decode("utf-8-sig", errors="replace")
    return [cell.strip() for cell in first.split(",")]


def token_cell(column: str, text: str) -> int:
    """A whole number of tokens; its range is checked when the trace is settled. Raises BadRow."""
    digits = text[1:] if text.startswith("-") else text
    if len(digits) <= _MAX_DIGITS and digits.isascii() and digits.isdigit():
        return int(text)
    whole, point, rest = digits.partition(".")  # pandas writes 12.0 where a column has holes
    if point and 0 < len(whole) <= _MAX_DIGITS and (whole + rest).isascii() and whole.isdigit() and not rest.strip("0"):
        return -int(whole) if text.startswith("-") else int(whole)
    raise BadRow(column, text, TOKENS_ALLOWED)


def seconds_cell(column: str, text: str) -> float:
    """A finite number of seconds. Raises BadRow."""
    try:
        seconds = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise BadRow(column, text, "finite seconds")
    return seconds
