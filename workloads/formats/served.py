"""Requests that a server (or a replay's client) has served: ``requests.jsonl``, one JSON object per request.

``{"request", "arrival_s", "prompt_tokens", "output_tokens", "prefix_ids", "prefix_block_tokens", "tenant", "slo_class",
"session_id", "outcome", "max_tokens"}``, in any order; further keys are ignored, all but the first four may be absent.
Requests that did not finish have no output length of their own: they are left out and counted, or kept with the length
that was asked for (``max_tokens``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from workloads.errors import TraceError
from workloads.formats.json_lines import finite_seconds, json_object, text_lines, token_count, whole_ids
from workloads.settle import BadRow, Invalid, Problem, RawRows, settle
from workloads.trace import Trace

FILE_NAME = "requests.jsonl"
_NEEDED = ("request", "arrival_s", "prompt_tokens", "output_tokens")
_LABELS = ("session_id", "tenant", "slo_class")
_MAX_REQUEST = 2**63


class _Row(NamedTuple):
    arrival_s: float
    request: int
    line: int
    prompt_tokens: int
    output_tokens: int
    prefix_ids: tuple[int, ...]
    labels: tuple[str, ...]


def is_served(data: bytes) -> bool:
    """Whether ``data`` looks like this format: the first line has our name of a time."""
    return b'"arrival_s"' in data.split(b"\n", 1)[0]


def parse(
    source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid, keep_unfinished: bool = False
) -> Trace:
    """The trace in ``data``, its first arrival at 0. Raises TraceError naming line, column, value, what is allowed."""
    reading = _Reading(keep_unfinished)
    for number, line in enumerate(text_lines(data), start=1):
        reading.take(number, line)
    if not reading.rows and not reading.problems:
        left_out = f"; {reading.unfinished} did not finish and were left out" if reading.unfinished else ""
        raise TraceError(f"{source}: no requests (allowed: at least one{left_out})")
    notes = {"unfinished": f"{reading.unfinished} {'kept as asked for' if keep_unfinished else 'left out'}"}
    return settle(reading.raw(source), name, {**metadata, **notes}, invalid)


class _Reading:
    def __init__(self, keep_unfinished: bool) -> None:
        self.rows: list[_Row] = []
        self.problems: list[Problem] = []
        self.unfinished = 0
        self._keep_unfinished = keep_unfinished
        self._block_tokens: int | None = None
        self._seen: set[int] = set()

    def take(self, number: int, line: str) -> None:
        """Read one line into a row, a problem, or the count of unfinished requests."""
        try:
            row = json_object(line)
            finished = row.get("outcome", "finished") == "finished"
            self.unfinished += not finished
            if finished or self._keep_unfinished:
                self.rows.append(self._row(number, row, finished))
        except BadRow as bad:
            self.problems.append(Problem(number, bad.column, bad.value, bad.allowed))

    def raw(self, source: str) -> RawRows:
        """What was read, in the order of arrival."""
        rows = sorted(self.rows)
        raw = RawRows(source, from_zero=False, block_tokens=self._block_tokens, problems=self.problems)
        raw.label = [row.line for row in rows]
        raw.arrival_s = [row.arrival_s for row in rows]
        raw.prompt_tokens = [row.prompt_tokens for row in rows]
        raw.output_tokens = [row.output_tokens for row in rows]
        if self._block_tokens is not None:
            raw.prefix_ids = [row.prefix_ids for row in rows]
        columns = zip(_LABELS, zip(*(row.labels for row in rows), strict=True), strict=False)
        raw.labels = {label: list(column) for label, column in columns if any(column)}
        return raw

    def _row(self, number: int, row: Mapping[str, Any], finished: bool) -> _Row:
        missing = [key for key in _NEEDED if key not in row]
        if missing:
            raise BadRow(missing[0], None, f"a JSON object with {', '.join(_NEEDED)}")
        prompt = token_count("prompt_tokens", row["prompt_tokens"])
        length = "output_tokens" if finished else "max_tokens"
        return _Row(
            finite_seconds("arrival_s", row["arrival_s"]),
            self._request(row["request"]),
            number,
            prompt,
            token_count(length, row.get(length)),
            self._prefix_ids(row, prompt),
            tuple(_label(label, row.get(label)) for label in _LABELS),
        )

    def _request(self, value: object) -> int:
        if type(value) is not int or not 0 <= value < _MAX_REQUEST:
            raise BadRow("request", value, "integers from 0 on")
        if value in self._seen:
            raise BadRow("request", value, "each request once")
        self._seen.add(value)
        return value

    def _prefix_ids(self, row: Mapping[str, Any], prompt: int) -> tuple[int, ...]:
        ids, block = row.get("prefix_ids"), row.get("prefix_block_tokens")
        if ids is None or block is None:
            return ()
        block = token_count("prefix_block_tokens", block)
        if self._block_tokens is None:
            self._block_tokens = block
        elif block != self._block_tokens:
            raise BadRow("prefix_block_tokens", block, f"{self._block_tokens}, as in the rows before")
        return whole_ids("prefix_ids", ids, "a list of integers 0..2^63-1")[: -(-prompt // block)]


def _label(column: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRow(column, value, "text or null")
    return value
