"""What a trace that we saved says about itself, in the metadata of its parquet file."""

from __future__ import annotations

import json
from typing import NamedTuple

from workloads.errors import TraceError
from workloads.trace import Trace

OWN_KEY = "semiflow_trace"
SCHEMA_VERSION = 1


class SavedNotes(NamedTuple):
    """The fields of a trace that are no columns."""

    name: str
    prefix_block_tokens: int | None
    metadata: dict[str, str]


def write_notes(trace: Trace) -> str:
    """The notes of ``trace`` as JSON."""
    notes = {
        "schema_version": SCHEMA_VERSION,
        "name": trace.name,
        "prefix_block_tokens": trace.prefix_block_tokens,
        "metadata": dict(trace.metadata),
    }
    return json.dumps(notes, sort_keys=True)


def read_notes(source: str, text: str) -> SavedNotes:
    """The notes in ``text``. Raises TraceError where they are damaged or of a later version."""
    try:
        notes = json.loads(text)
        version, name, block = notes["schema_version"], notes["name"], notes["prefix_block_tokens"]
        metadata = {str(key): str(value) for key, value in notes["metadata"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TraceError(f"{source}: the metadata {OWN_KEY} is damaged; save the trace again") from error
    if version != SCHEMA_VERSION:
        raise TraceError(f"{source}: {OWN_KEY} version {version!r} (allowed: {SCHEMA_VERSION}); update semiflow")
    if not isinstance(name, str) or not (block is None or type(block) is int):
        raise TraceError(f"{source}: the metadata {OWN_KEY} is damaged; save the trace again")
    return SavedNotes(name, block, metadata)
