"""Mooncake's traces: JSONL with ``timestamp`` (ms), ``input_length``, ``output_length`` and ``hash_ids``.

One id per 512 prompt tokens (or as many as the reading states), chained; the last block may be partial. Source:
github.com/kvcache-ai/Mooncake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from workloads.errors import TraceError
from workloads.formats.json_lines import json_object, text_lines, token_count, whole_ids
from workloads.settle import BadRow, Invalid, Problem, RawRows, settle
from workloads.trace import Trace

BLOCK_TOKENS = 512
_KEYS = ("timestamp", "input_length", "output_length", "hash_ids")
_COLUMNS = {"arrival_s": "timestamp", "prefix_ids": "hash_ids"}
_IDS_ALLOWED = "a list of integers 0..2^63-1"
_Row = tuple[float, int, int, tuple[int, ...]]


def parse(
    source: str,
    data: bytes,
    name: str,
    metadata: Mapping[str, str],
    invalid: Invalid,
    block_tokens: int = BLOCK_TOKENS,
) -> Trace:
    """The trace in ``data``. Raises TraceError naming ``source``, line, column, value and what is allowed."""
    lines = text_lines(data)
    numbers: list[int] = []
    rows: list[_Row] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_row(line, block_tokens))
            numbers.append(number)
        except BadRow as bad:
            problems.append(Problem(number, bad.column, bad.value, bad.allowed))
    if not rows and not problems:
        raise TraceError(f"{source}: empty file (allowed: one JSON object per line with {', '.join(_KEYS)})")
    raw = RawRows(source, source_columns=_COLUMNS, block_tokens=block_tokens, label=numbers, problems=problems)
    raw.arrival_s = [row[0] for row in rows]
    raw.prompt_tokens = [row[1] for row in rows]
    raw.output_tokens = [row[2] for row in rows]
    raw.prefix_ids = [row[3] for row in rows]
    return settle(raw, name, metadata, invalid)


def _row(line: str, block_tokens: int) -> _Row:
    row = json_object(line)
    missing = [key for key in _KEYS if key not in row]
    if missing:
        raise BadRow(missing[0], None, f"a JSON object with {', '.join(_KEYS)}")
    prompt = token_count("input_length", row["input_length"])
    output = token_count("output_length", row["output_length"])
    return _arrival_s(row["timestamp"]), prompt, output, _ids(row["hash_ids"], prompt, block_tokens)


def _arrival_s(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = value / 1_000
        except OverflowError:
            seconds = math.inf
        if math.isfinite(seconds) and seconds >= 0.0:
            return seconds
    raise BadRow("timestamp", value, "finite milliseconds >= 0")


def _ids(value: object, prompt: int, block_tokens: int) -> tuple[int, ...]:
    ids = whole_ids("hash_ids", value, _IDS_ALLOWED)
    blocks = -(-prompt // block_tokens)
    if len(ids) != blocks:
        allowed = f"{blocks}, one per {block_tokens} of {prompt} prompt tokens"
        raise BadRow("hash_ids", f"{len(ids)} ids", allowed)
    return ids
