"""Sessions of coding agents as WEKA's kv-cache-tester has them: JSON with ``id``, ``block_size`` and ``requests``.

A request has ``t`` (seconds from the start of its session), ``in``, ``out``, ``hash_ids`` (one per full block, local
to the session), ``api_time`` and ``think_time``; an entry of type ``subagent`` holds the requests of a sub-agent that
starts at its ``t``. One session per file, one per line, or many files in a tar. Sessions have no common clock: more
than one needs ``--session-rate``. Turns keep their recorded times after that; with ``workload.closed_loop`` they come
their think times after the answers. Source: github.com/callanjfox/kv-cache-tester.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from workloads.chains import Chains
from workloads.errors import TraceError, shown
from workloads.formats.columns import Columns
from workloads.formats.json_lines import finite_seconds, token_count, whole_ids
from workloads.formats.reading import AS_IT_IS, Reading
from workloads.sessions import NO_PARENT
from workloads.settle import BadRow, Invalid, Problem, RawRows, settle
from workloads.trace import Trace

BLOCK_TOKENS = 64
_COLUMNS = {"arrival_s": "t", "prompt_tokens": "in", "output_tokens": "out", "prefix_ids": "hash_ids"}
_PAUSES = "turns arrive at their recorded times or, with workload.closed_loop, their think times after the answers"
_SESSION_ALLOWED = "a JSON object with id, block_size and requests"
_MAX_DEPTH = 4
Json = Mapping[str, Any]  # JSON, checked key by key


class _Turn(NamedTuple):
    """One request, its place in the file (counted over all sessions), and what it follows."""

    arrival_s: float
    row: int
    prompt_tokens: int
    output_tokens: int
    ids: tuple[int, ...]
    session: str
    turn: int
    parent: int
    think_s: float


def parse(
    source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid, reading: Reading = AS_IT_IS
) -> Trace:
    """The sessions in ``data``, one or one per line. Raises TraceError naming ``source``, request, column, value."""
    return parse_many(source, list(_documents(data)), name, metadata, invalid, reading)


def parse_many(
    source: str, documents: list[str], name: str, metadata: Mapping[str, str], invalid: Invalid, reading: Reading
) -> Trace:
    """The sessions in ``documents``, each JSON of its own, on one clock."""
    starts = _starts(source, len(documents), reading)
    sessions = _Sessions()
    for text, start_s in zip(documents, starts, strict=True):
        sessions.add(text, start_s)
    if not sessions.turns and not sessions.problems:
        raise TraceError(f"{source}: no requests (allowed: at least one)")
    columns = Columns(problems=sessions.problems)
    for turn in sorted(sessions.turns, key=lambda turn: (turn.arrival_s, turn.row)):
        columns.add(turn.row, turn.arrival_s, turn.prompt_tokens, turn.output_tokens)
        columns.prefix_ids.append(turn.ids)
        columns.add_turn(turn.session, turn.turn, turn.parent, turn.think_s)
    raw = RawRows(source, row_word="request", source_columns=_COLUMNS, block_tokens=sessions.block_tokens)
    notes = {"turns": _PAUSES, "root_sessions": str(len(documents))}
    if len(documents) > 1:
        notes["session_starts"] = (
            f"not recorded; Poisson, {reading.sessions_per_s} sessions/s, seed {reading.random_seed}"
        )
    return settle(columns.raw(raw), name, {**metadata, **notes}, invalid)


def _documents(data: bytes) -> Iterator[str]:
    """The whole text if it is one JSON value, else its lines."""
    text = data.decode("utf-8-sig", errors="backslashreplace")
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        json.loads(lines[0] if lines else "")
    except (ValueError, RecursionError):
        lines = [text]
    yield from lines


def _starts(source: str, sessions: int, reading: Reading) -> list[float]:
    """When each session begins."""
    if sessions == 1:
        reading.check(source, "one session of kv-cache-tester")
        return [0.0]
    reading.check(source, "sessions of kv-cache-tester", "sessions_per_s", "seed")
    if reading.sessions_per_s is None:
        raise TraceError(
            f"{source}: {sessions} sessions without a common clock; say how many begin per second "
            f"(semiflow workloads convert FILE OUT.parquet --session-rate 0.1)"
        )
    rng = np.random.default_rng(reading.random_seed)
    gaps = rng.exponential(1.0 / reading.sessions_per_s, size=sessions)
    starts: list[float] = np.cumsum(gaps).tolist()
    return starts


class _Sessions:
    """Collects the turns of all sessions; ids are local to a session, so each is a scope of its own."""

    def __init__(self) -> None:
        self.turns: list[_Turn] = []
        self.problems: list[Problem] = []
        self.block_tokens = BLOCK_TOKENS
        self._count = 0
        self._block_known = False
        self._chains = Chains()

    def add(self, text: str, start_s: float) -> None:
        """All requests of the session in ``text``. One that is damaged as a whole counts as one bad row."""
        try:
            session = self._open(text)
        except BadRow as bad:
            self._note(bad)
            return
        self._chains.next_scope()
        self._add_requests(str(session["id"]), session["requests"], start_s, NO_PARENT, 0)

    def _open(self, text: str) -> Json:
        try:
            session = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadRow("session", text, _SESSION_ALLOWED) from error
        if not isinstance(session, dict) or not isinstance(session.get("requests"), list) or "id" not in session:
            raise BadRow("session", shown(session), _SESSION_ALLOWED)
        block = token_count("block_size", session.get("block_size", BLOCK_TOKENS))
        if self._block_known and block != self.block_tokens:
            raise BadRow("block_size", block, f"{self.block_tokens}, as in the sessions before")
        self.block_tokens, self._block_known = block, True
        return session

    def _add_requests(self, session: str, requests: list[Any], start_s: float, parent: int, depth: int) -> None:
        turn = 0
        for request in requests:
            try:
                if not isinstance(request, dict):
                    raise BadRow("request", request, "a JSON object")
                at_s = start_s + finite_seconds("t", request.get("t"))
                if request.get("type") == "subagent":
                    self._add_agent(session, request, at_s, parent, depth)
                    continue
                self.turns.append(self._turn(session, request, at_s, turn, parent))
            except BadRow as bad:
                self._note(bad)
                continue
            parent, turn = self._count, turn + 1
            self._count += 1

    def _add_agent(self, session: str, entry: Json, at_s: float, parent: int, depth: int) -> None:
        """A sub-agent is a session of its own that follows the request which started it."""
        requests = entry.get("requests")
        if not isinstance(requests, list) or depth >= _MAX_DEPTH:
            raise BadRow("requests", shown(requests), f"a list of requests, nested at most {_MAX_DEPTH} deep")
        self._add_requests(f"{session}/{entry.get('agent_id', 'agent')}", requests, at_s, parent, depth + 1)

    def _turn(self, session: str, request: Json, at_s: float, turn: int, parent: int) -> _Turn:
        prompt = token_count("in", request.get("in"))
        output = token_count("out", request.get("out"))
        blocks = whole_ids("hash_ids", request.get("hash_ids"), "a list of integers 0..2^63-1")
        most = -(-prompt // self.block_tokens)
        if len(blocks) not in (prompt // self.block_tokens, most):
            allowed = f"{prompt // self.block_tokens} to {most}, one per {self.block_tokens} of {prompt} prompt tokens"
            raise BadRow("hash_ids", f"{len(blocks)} ids", allowed)
        think_s = finite_seconds("think_time", request.get("think_time", 0.0))
        if think_s < 0.0:
            raise BadRow("think_time", think_s, "finite seconds >= 0")
        ids = self._chains.ids(blocks)
        return _Turn(at_s, self._count, prompt, output, ids, session, turn, parent, 0.0 if parent < 0 else think_s)

    def _note(self, bad: BadRow) -> None:
        self.problems.append(Problem(self._count, bad.column, bad.value, bad.allowed))
        self._count += 1
