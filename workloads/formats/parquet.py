"""Parquet: the shared normalised format, and traces saved by :mod:`workloads.storage` (same columns).

Columns: ``arrival_s`` (float64, seconds from the start of the trace), ``prompt_tokens``, ``output_tokens`` (integers);
optional ``prefix_hash_ids`` or ``prefix_ids`` (lists of integers, chained), ``session_id``, ``user_id`` or ``tenant``,
``slo_class``, and in files of ours ``turn``, ``parent_row``, ``think_s``. File metadata: ``trace_name``,
``source_url``, ``source_sha256``, ``license``, ``arrival_reference``, ``block_size_tokens``, ``hash_scope``. Files
without a common clock (sessions, lengths only) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads import sessions
from workloads.errors import TraceError, shown
from workloads.formats import arrow
from workloads.formats.length_table import NO_ARRIVALS, with_arrivals
from workloads.formats.reading import AS_IT_IS, Reading
from workloads.formats.saved import OWN_KEY, read_notes
from workloads.prefix import IDS_ALLOWED
from workloads.settle import Invalid, Problem, RawRows, settle
from workloads.trace import Trace
from workloads.validate import TOKENS_ALLOWED

MAGIC = b"PAR1"
_NEEDED = ("arrival_s", "prompt_tokens", "output_tokens")
_IDS = ("prefix_ids", "prefix_hash_ids")
_LABELS = {"session_id": "session_id", "tenant": "tenant", "user_id": "tenant", "slo_class": "slo_class"}
_KNOWN = (*_NEEDED, *_IDS, *_LABELS, *sessions.COLUMNS)
_PROVENANCE = {
    "source_url": "source_url",
    "source_sha256": "source_sha256",
    "license": "licence",
    "window_s": "window_of_source",
}
_MAX_ID = (1 << 63) - 1
Table = Any  # pyarrow ships no types
Column = Any


def parse(
    source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid, reading: Reading = AS_IT_IS
) -> Trace:
    """The trace in ``data``. Raises TraceError naming ``source``, row, column, value and what is allowed.

    A trace that we saved keeps its own name and metadata; ``name`` and ``metadata`` are for other files.
    """
    table = _table(source, data, reading)
    notes = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in _notes(table).items()}
    saved = read_notes(source, notes[OWN_KEY]) if OWN_KEY in notes else None
    raw = _rows(source, table)
    if saved:
        _add_sessions(raw, source, table)
    if raw.prefix_ids is not None:
        raw.block_tokens = saved.prefix_block_tokens if saved else _block_tokens(source, notes)
        _drop_long_ids(raw, raw.prefix_ids)
    lengths_only = "arrival_s" not in table.column_names
    if lengths_only:
        reading.check(source, "a table of lengths", "arrivals", "seed")
    else:
        reading.check(source, "parquet with arrival times")
    if saved:
        raw.counted = False
        return settle(raw, saved.name, saved.metadata, invalid)
    provenance = {_PROVENANCE[key]: notes[key] for key in _PROVENANCE if key in notes}
    trace = settle(raw, notes.get("trace_name") or name, {**metadata, **provenance}, invalid)
    return with_arrivals(trace, reading) if lengths_only else trace


def _table(source: str, data: bytes, reading: Reading) -> Table:
    """The columns that we know, fully checked by Arrow. Refuses files without a clock that all requests share."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        _refuse_other_kinds(source, names, file.schema_arrow.metadata or {}, reading)
        table = file.read(
            columns=[column for column in names if column in (*_NEEDED, *_IDS, *_LABELS, *sessions.COLUMNS)]
        )
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TraceError(f"{source}: damaged parquet file ({shown(reason)}); fetch it again") from error
    return table


def _notes(table: Table) -> dict[bytes, bytes]:
    return table.schema.metadata or {}


def _refuse_other_kinds(source: str, names: list[str], notes: Mapping[bytes, bytes], reading: Reading) -> None:
    reference = notes.get(b"arrival_reference", b"trace").decode(errors="replace")
    missing = [column for column in _NEEDED if column not in names]
    twice = sorted({column for column in names if names.count(column) > 1})
    if "session start" in reference:
        raise TraceError(f"{source}: {_no_clock(notes)}")
    if missing == ["arrival_s"] and reading.arrivals is not None:
        return
    if reference.startswith("none") or missing == ["arrival_s"]:
        raise TraceError(f"{source}: {NO_ARRIVALS}")
    if reference != "trace" or missing:
        reason = f"not a request log (arrival_reference {reference!r}, missing columns: {', '.join(missing) or 'none'})"
    elif twice:
        reason = f"columns occur twice: {', '.join(twice)}"
    elif notes.get(b"hash_scope", b"trace") != b"trace":
        reason = f"prefix ids are comparable only inside {shown(notes[b'hash_scope'])} (allowed: the whole trace)"
    else:
        return
    raise TraceError(f"{source}: {reason} (allowed: {', '.join(_NEEDED)} for each request, on one clock)")


def _no_clock(notes: Mapping[bytes, bytes]) -> str:
    """Why sessions without a common clock are not read, and what to do instead."""
    publisher = shown(notes.get(b"source_url", b"unknown").decode(errors="replace"), characters=160)
    if b"kv-cache-tester" in notes.get(b"source_url", b""):
        remedy = (
            f"and this copy does not say which requests began sub-agents; fetch the publisher's archive {publisher} "
            f"and say how many begin per second (semiflow workloads convert FILE OUT.parquet --session-rate 0.1)"
        )
    else:
        remedy = f"and its source, {publisher}, is in no format of semiflow; take another one (semiflow workloads list)"
    return f"holds sessions without a common clock, {remedy}"


def _rows(source: str, table: Table) -> RawRows:
    raw = RawRows(source, row_word="row")
    prompt, output = (_numbers(source, table, column) for column in ("prompt_tokens", "output_tokens"))
    known = "arrival_s" in table.column_names
    arrivals = _numbers(source, table, "arrival_s") if known else np.zeros(len(prompt))
    usable = np.ones(len(arrivals), dtype=np.bool_)
    for column, tokens in (("prompt_tokens", prompt), ("output_tokens", output)):
        whole = np.isfinite(tokens) & (np.floor(tokens) == tokens) & (np.abs(tokens) < _MAX_ID)
        _note(raw, column, TOKENS_ALLOWED, usable & ~whole, tokens.tolist())
        usable &= whole
    ids = _id_lists(source, table)
    if ids is not None:
        fine = np.array([request is not None for request in ids], dtype=np.bool_)
        _note(raw, "prefix_ids", IDS_ALLOWED, usable & ~fine, [None] * len(ids))
        usable &= fine
    kept = np.flatnonzero(usable)
    raw.label, raw.arrival_s = kept, arrivals[kept]
    raw.prompt_tokens, raw.output_tokens = prompt[kept].astype(np.int64), output[kept].astype(np.int64)
    raw.prefix_ids = None if ids is None else [request for row in kept.tolist() if (request := ids[row]) is not None]
    raw.labels = {column: [values[row] for row in kept.tolist()] for column, values in _label_columns(table).items()}
    return raw


def _add_sessions(raw: RawRows, source: str, table: Table) -> None:
    """Turns, parents and pauses of the rows that are left."""
    kept = np.asarray(raw.label)
    columns = {}
    for column in sessions.COLUMNS:
        if column in table.column_names:
            values = _numbers(source, table, column)[kept]
            if not np.isfinite(values).all() or (np.abs(values) >= _MAX_ID).any():
                raise TraceError(f"{source}, column {column}: not all values are numbers; save the trace again")
            columns[column] = values
    raw.turn = columns["turn"].astype(np.int64) if "turn" in columns else None
    raw.parent = columns["parent_row"].astype(np.int64) if "parent_row" in columns else None
    raw.think_s = columns.get("think_s")


def _note(raw: RawRows, column: str, allowed: str, bad: NDArray[np.bool_], values: list[Any]) -> None:
    raw.problems += [Problem(row, column, values[row], allowed) for row in np.flatnonzero(bad).tolist()]


def _numbers(source: str, table: Table, column: str) -> NDArray[np.float64]:
    """A column of numbers; null becomes NaN."""
    import pyarrow as pa

    values = table.column(column)
    if not (pa.types.is_integer(values.type) or pa.types.is_float32(values.type) or pa.types.is_float64(values.type)):
        raise TraceError(f"{source}, column {column}: type {values.type} (allowed: integers or floats)")
    return np.concatenate([np.empty(0), *(arrow.floats(chunk) for chunk in values.chunks)])


def _id_lists(source: str, table: Table) -> list[tuple[int, ...] | None] | None:
    """Ids per request; None in place of a request's where they are null or not 0..2^63-1."""
    import pyarrow as pa

    column = next((name for name in _IDS if name in table.column_names), None)
    if column is None:
        return None
    chunks = table.column(column)
    if not (pa.types.is_list(chunks.type) and pa.types.is_integer(chunks.type.value_type)):
        raise TraceError(f"{source}, column {column}: type {chunks.type} (allowed: lists of integers)")
    return [ids for chunk in chunks.chunks for ids in _ids_of_chunk(chunk)]


def _ids_of_chunk(chunk: Column) -> list[tuple[int, ...] | None]:
    flat = arrow.integers(chunk.values)
    ends = arrow.integers(chunk.offsets)
    wrong_before = np.concatenate(([0], np.cumsum(flat < 0)))[ends]
    fine = arrow.valid(chunk) & (np.diff(wrong_before) == 0)
    ids = flat.tolist()
    return [
        tuple(ids[start:end]) if usable else None
        for (start, end), usable in zip(pairwise(ends.tolist()), fine.tolist(), strict=True)
    ]


def _block_tokens(source: str, notes: Mapping[str, str]) -> int:
    text = notes.get("block_size_tokens", "none")
    if not (text.isascii() and text.isdigit()) or not 1 <= len(text) <= 9 or int(text) == 0:
        raise TraceError(f"{source}, metadata block_size_tokens: {shown(text)} (allowed: tokens per prefix id, >= 1)")
    return int(text)


def _drop_long_ids(raw: RawRows, ids: list[tuple[int, ...]]) -> None:
    """Move requests with more ids than their prompt has blocks to the problems."""
    block = raw.block_tokens or 1
    prompts = np.asarray(raw.prompt_tokens)
    counts = np.array([len(request) for request in ids], dtype=np.int64)
    fits = (counts <= -(-prompts // block)) | (prompts < 1)
    for row in np.flatnonzero(~fits).tolist():
        allowed = f"at most one per {block} of {prompts[row]} prompt tokens"
        raw.problems.append(Problem(int(raw.label[row]), "prefix_ids", f"{counts[row]} ids", allowed))
    raw.keep(np.flatnonzero(fits))


def _label_columns(table: Table) -> dict[str, list[str]]:
    """Session, tenant and SLO class as text; null becomes the empty text."""
    columns = {}
    for column, meaning in _LABELS.items():
        if column in table.column_names and meaning not in columns:
            columns[meaning] = ["" if value is None else str(value) for value in table.column(column).to_pylist()]
    return columns
