"""Qwen-Bailian's traces: JSONL with one 16-token block id per block, and who follows whom.

``chat_id``, ``parent_chat_id`` (-1: none), ``timestamp`` (seconds), ``input_length``, ``output_length``, ``turn`` (from
1 on), ``hash_ids``; ``type`` (text, search, ...) is not read. The publisher hashes each block on its own, so ids are
chained here (:mod:`workloads.chains`). A partial last block may have an id or not. A session is the tree of a root
chat. When an answer ended was not recorded, so there is no think time: the turns keep their recorded times. A parent
that is not in the file is said in the metadata (``missing_parents``); its follower begins a session. Source:
github.com/alibaba-edu/qwen-bailian-usagetraces-anon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from workloads.chains import Chains
from workloads.errors import TraceError
from workloads.formats.columns import Columns
from workloads.formats.json_lines import finite_seconds, json_object, text_lines, token_count, whole_ids
from workloads.formats.reading import AS_IT_IS, Reading
from workloads.sessions import NO_PARENT
from workloads.settle import BadRow, Invalid, RawRows, settle
from workloads.trace import Trace

BLOCK_TOKENS = 16
KEYS = ("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", "turn", "hash_ids")
_COLUMNS = {"arrival_s": "timestamp", "prefix_ids": "hash_ids"}
_MISSING = 0
"""The line of a parent that is not in the file: lines count from 1."""
_NO_PAUSES = "open loop: turns arrive at their recorded times (the file does not say when answers ended)"


class _Row(NamedTuple):
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]
    chat: int
    parent: int
    turn: int


class _Chat(NamedTuple):
    line: int
    session: str


def parse(
    source: str,
    data: bytes,
    name: str,
    metadata: Mapping[str, str],
    invalid: Invalid,
    reading: Reading = AS_IT_IS,
) -> Trace:
    """The trace in ``data``. Raises TraceError naming ``source``, line, column, value and what is allowed."""
    reading.check(source, "Bailian's JSONL", "block_tokens")
    block = reading.block_tokens or BLOCK_TOKENS
    columns, chains = Columns(), Chains()
    chats: dict[int, _Chat] = {}
    for number, line in enumerate(text_lines(data), start=1):
        try:
            row = _row(json_object(line), block)
            if row.chat in chats:
                raise BadRow("chat_id", row.chat, f"each once; line {chats[row.chat].line} has it")
        except BadRow as bad:
            columns.note(number, bad)
            continue
        columns.add(number, row.arrival_s, row.prompt_tokens, row.output_tokens)
        columns.prefix_ids.append(chains.ids(row.blocks))
        chats[row.chat] = _join(columns, number, row, chats)
    if not columns.row and not columns.problems:
        raise TraceError(f"{source}: empty file (allowed: one JSON object per line with {', '.join(KEYS)})")
    raw = RawRows(source, source_columns=_COLUMNS, block_tokens=block)
    return settle(columns.raw(raw), name, {**metadata, "turns": _NO_PAUSES}, invalid)


def _join(columns: Columns, number: int, row: _Row, chats: Mapping[int, _Chat]) -> _Chat:
    """Put the request into the session of its parent, or let it begin one."""
    parent = chats.get(row.parent)
    session = parent.session if parent else str(row.chat)
    follows = NO_PARENT if row.parent < 0 else parent.line if parent else _MISSING
    columns.add_turn(session, row.turn - 1, follows)
    return _Chat(number, session)


def _row(row: Mapping[str, Any], block: int) -> _Row:
    missing = [key for key in KEYS if key not in row]
    if missing:
        raise BadRow(missing[0], None, f"a JSON object with {', '.join(KEYS)}")
    prompt = token_count("input_length", row["input_length"])
    blocks = whole_ids("hash_ids", row["hash_ids"], "a list of integers 0..2^63-1")
    if len(blocks) not in (prompt // block, -(-prompt // block)):
        allowed = f"{prompt // block} to {-(-prompt // block)}, one per {block} of {prompt} prompt tokens"
        raise BadRow("hash_ids", f"{len(blocks)} ids", allowed)
    return _Row(
        finite_seconds("timestamp", row["timestamp"]),
        prompt,
        token_count("output_length", row["output_length"]),
        blocks,
        _whole("chat_id", row["chat_id"], 0),
        _whole("parent_chat_id", row["parent_chat_id"], -1),
        _whole("turn", row["turn"], 1),
    )


def _whole(column: str, value: object, low: int) -> int:
    if type(value) is not int or not low <= value < 1 << 31:
        raise BadRow(column, value, f"integers {low}..2147483647")
    return value
