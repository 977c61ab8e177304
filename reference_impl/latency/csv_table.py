"""Read CSV tables of numbers, with errors that name file, line, column and value."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from reference_impl.latency.errors import ProfileError, reason


def rows(path: Path, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of a CSV file that must have these columns."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            absent = [column for column in columns if column not in (reader.fieldnames or ())]
            if absent:
                raise ProfileError(f"{path}: column {absent[0]!r} is missing; it needs {', '.join(columns)}")
            yield from enumerate(reader, start=2)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProfileError(f"cannot read {path}: {reason(error)}") from error


def number(path: Path, line: int, row: dict[str, str], column: str, *, positive: bool = False) -> float:
    """The value of a cell, 0 or more (``positive``: more than 0)."""
    text = row[column]
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value < 1e12 or (positive and value == 0):
        allowed = "above 0" if positive else "of 0 or more"
        raise ProfileError(f"{path}, line {line}: {column} is {text!r}; it must be a number {allowed}")
    return value
