"""Azure's LLM inference traces of 2023 and 2024: CSV with ``TIMESTAMP,ContextTokens,GeneratedTokens``.

2023: CRLF, seven fractional digits (100 ns), no time zone. 2024: six digits and ``+00:00``. Both are read to the
nanosecond. Times count from the first row that is kept. Source: github.com/Azure/AzurePublicDataset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache

from workloads.errors import TraceError, shown
from workloads.settle import BadRow, Invalid, Problem, RawRows, settle
from workloads.trace import Trace
from workloads.validate import TOKENS_ALLOWED

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
_COLUMNS = dict(zip(("arrival_s", "prompt_tokens", "output_tokens"), HEADER.split(","), strict=True))
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[ T]([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,9}))?(Z|[+-]\d{2}:[0-5]\d)?", re.ASCII
)
_TIME_ALLOWED = "YYYY-MM-DD HH:MM:SS[.fraction][+HH:MM]"
_MAX_DIGITS = 18


def parse(source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid) -> Trace:
    """The trace in ``data``. Raises TraceError naming ``source``, line, column, value and what is allowed."""
    lines = data.decode("utf-8-sig", errors="backslashreplace").split("\n")
    if lines[0].rstrip("\r") != HEADER:
        raise TraceError(f"{source}, line 1: {shown(lines[0])} is not the header of an Azure trace (allowed: {HEADER})")
    if lines[-1] == "":
        lines.pop()
    raw = RawRows(source, source_columns=_COLUMNS, from_zero=False)
    first_ns: int | None = None
    zoned = False
    for number, line in enumerate(lines[1:], start=2):
        try:
            time_ns, has_zone, prompt, output = _row(line.removesuffix("\r"))
            if first_ns is None:
                first_ns, zoned = time_ns, has_zone
            elif has_zone is not zoned:
                raise BadRow("TIMESTAMP", line.split(",")[0], "a time zone in all rows or in none")
        except BadRow as bad:
            raw.problems.append(Problem(number, bad.column, bad.value, bad.allowed))
            continue
        _append(raw, number, (time_ns - first_ns) / 1e9, prompt, output)
    return settle(raw, name, metadata, invalid)


def _append(raw: RawRows, number: int, arrival_s: float, prompt: int, output: int) -> None:
    for column, value in (
        (raw.label, number),
        (raw.arrival_s, arrival_s),
        (raw.prompt_tokens, prompt),
        (raw.output_tokens, output),
    ):
        column.append(value)  # type: ignore[union-attr,arg-type] # the lists that RawRows starts with


def _row(line: str) -> tuple[int, bool, int, int]:
    """Nanoseconds (UTC where there is no zone), whether a zone is stated, prompt tokens, output tokens."""
    cells = line.split(",")
    if len(cells) != 3:
        raise BadRow("row", line, f"three cells: {HEADER}")
    time_ns, has_zone = _time_ns(cells[0])
    return time_ns, has_zone, _tokens("ContextTokens", cells[1]), _tokens("GeneratedTokens", cells[2])


def _tokens(column: str, text: str) -> int:
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_DIGITS:
        raise BadRow(column, text, TOKENS_ALLOWED)
    return int(text)


def _time_ns(text: str) -> tuple[int, bool]:
    match = _TIME.fullmatch(text)
    day = _day(match[1]) if match else None
    if match is None or day is None:
        raise BadRow("TIMESTAMP", text, _TIME_ALLOWED)
    seconds = day * 86_400 + int(match[2]) * 3_600 + int(match[3]) * 60 + int(match[4])
    fraction_ns = int((match[5] or "").ljust(9, "0"))
    zone = match[6]
    if zone and zone != "Z":
        offset = int(zone[1:3]) * 3_600 + int(zone[4:6]) * 60
        seconds += offset if zone[0] == "-" else -offset
    return seconds * 1_000_000_000 + fraction_ns, zone is not None


@lru_cache(maxsize=64)
def _day(text: str) -> int | None:
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError:
        return None
