"""Readers of trace files. Malformed input raises :class:`~workloads.errors.TraceError`, never anything else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from workloads.errors import TraceError, shown
from workloads.formats import azure, mooncake, parquet, served
from workloads.formats.source import decompress, read_bytes, stem
from workloads.settle import Invalid, check_invalid
from workloads.trace import Trace

_PARSERS = {
    "parquet": parquet.parse,
    "csv": azure.parse,
    "jsonl": mooncake.parse,
    "json": mooncake.parse,
    "served": served.parse,
}
ALLOWED = "parquet (ours or the shared format), Azure CSV, Mooncake JSONL, a run's requests.jsonl; each also as .gz"


def open_file(path: str | os.PathLike[str], invalid: Invalid = "error") -> Trace:
    """The trace in the file ``path``, whatever its format. Raises TraceError.

    ``invalid``: what to do with rows that no serving system could have produced (zero or negative lengths, times that
    are negative, not numbers or out of order, truncated lines): ``error`` refuses the file, ``drop`` leaves them out.
    Either way they are counted: in the message, or in the metadata (``rows_dropped``, with the first examples).
    """
    file = Path(path)
    return parse_bytes(file.name, read_bytes(file), invalid)


def parse_bytes(source: str, raw: bytes, invalid: Invalid = "error") -> Trace:
    """The trace in ``raw``, the content of a file called ``source``."""
    check_invalid(invalid)
    data = decompress(source, raw)
    metadata = {"file": source, "sha256": hashlib.sha256(raw).hexdigest()}
    return _PARSERS[_kind(source, data)](source, data, stem(Path(source)), metadata, invalid)


def _kind(source: str, data: bytes) -> str:
    """The format by its first bytes, or by the file's name."""
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if data.startswith(parquet.MAGIC):
        return "parquet"
    if start.startswith(azure.HEADER[:9].encode()):
        return "csv"
    if start.startswith(b"{"):
        return "served" if served.is_served(data) else "jsonl"
    suffix = source.removesuffix(".gz").rsplit(".", 1)[-1].lower()
    if suffix in _PARSERS:
        return suffix
    raise TraceError(f"{source}: begins with {shown(start[:20])}, which is no known trace format (allowed: {ALLOWED})")


__all__ = ["ALLOWED", "Invalid", "open_file", "parse_bytes"]
