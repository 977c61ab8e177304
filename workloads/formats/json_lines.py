"""Text files of one JSON object per line."""

from __future__ import annotations

import json
import math
from typing import Any

from workloads.settle import BadRow
from workloads.validate import MAX_TOKENS, TOKENS_ALLOWED


def text_lines(data: bytes) -> list[str]:
    """The lines of ``data``; bytes that are no UTF-8 stay visible as escapes."""
    lines = data.decode("utf-8-sig", errors="backslashreplace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def json_object(line: str) -> dict[str, Any]:  # Any: JSON, checked key by key
    """The object in a line. Raises BadRow."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRow("row", line, "one JSON object per line") from error
    if not isinstance(row, dict):
        raise BadRow("row", line, "one JSON object per line")
    return row


def token_count(column: str, value: object) -> int:
    """A whole number of tokens from 1 on. Raises BadRow."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_TOKENS:
        return value
    raise BadRow(column, value, TOKENS_ALLOWED)


def whole_ids(column: str, value: object, allowed: str) -> tuple[int, ...]:
    """A list of prefix ids. Raises BadRow saying what is ``allowed``."""
    if not isinstance(value, list):
        raise BadRow(column, value, allowed)
    for item in value:
        if type(item) is not int or not 0 <= item < 1 << 63:  # bool is an int, but not an id
            raise BadRow(column, item, allowed)
    return tuple(value)


def finite_seconds(column: str, value: object) -> float:
    """A finite number of seconds. Raises BadRow."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
        if math.isfinite(seconds):
            return seconds
    raise BadRow(column, value, "finite seconds")
