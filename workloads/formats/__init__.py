"""Readers of trace files. Malformed input raises :class:`~workloads.errors.TraceError`, never anything else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from workloads.errors import TraceError, shown
from workloads.formats import (
    archive,
    azure,
    bailian,
    burstgpt,
    length_table,
    mooncake,
    parquet,
    served,
    servegen,
    vidur,
    weka,
)
from workloads.formats.csv_lines import header_of
from workloads.formats.reading import AS_IT_IS, Reading
from workloads.formats.source import decompress, read_bytes, stem
from workloads.settle import Invalid, check_invalid
from workloads.trace import Trace

Parser = Callable[[str, bytes, str, Mapping[str, str], Invalid, Reading], Trace]


def _plain(format_: str, parse: Callable[[str, bytes, str, Mapping[str, str], Invalid], Trace]) -> Parser:
    """A reader of ``format_`` that honours nothing of a :class:`Reading`, so that one which chooses is refused."""

    def parser(
        source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid, reading: Reading
    ) -> Trace:
        reading.check(source, format_)
        return parse(source, data, name, metadata, invalid)

    return parser


def _mooncake(
    source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid, reading: Reading
) -> Trace:
    reading.check(source, "Mooncake's JSONL", "block_tokens")
    block = reading.block_tokens or mooncake.BLOCK_TOKENS
    return mooncake.parse(source, data, name, metadata, invalid, block)


def _archive(
    source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid, reading: Reading
) -> Trace:
    files = archive.members(source, data)
    if servegen.is_profile(list(files)):
        return servegen.parse(source, files, name, metadata, invalid, reading)
    sessions = [
        decompress(path, content).decode("utf-8-sig", errors="backslashreplace")
        for path, content in sorted(files.items())
        if path.removesuffix(".gz").endswith(".json") and b'"requests"' in decompress(path, content)
    ]
    if not sessions:
        allowed = "ServeGen's chunk-N-trace.csv, or sessions of kv-cache-tester as .json"
        raise TraceError(f"{source}: an archive of {len(files)} files without a known format (allowed: {allowed})")
    return weka.parse_many(source, sessions, name, metadata, invalid, reading)


_PARSERS: dict[str, Parser] = {
    "parquet": parquet.parse,
    "csv": _plain("Azure's CSV", azure.parse),
    "burstgpt": _plain("BurstGPT's CSV", burstgpt.parse),
    "vidur": _plain("Vidur's CSV", vidur.parse),
    "lengths": length_table.parse,
    "jsonl": _mooncake,
    "json": _mooncake,
    "served": _plain("a run's requests", served.parse),
    "bailian": bailian.parse,
    "weka": weka.parse,
    "tar": _archive,
}
_BY_NAME = ("parquet", "csv", "jsonl", "json")
ALLOWED = (
    "parquet (ours or the shared format), CSV of Azure, BurstGPT or Vidur, NanoFlow's lengths, JSONL of Mooncake or "
    "Bailian, sessions of kv-cache-tester, ServeGen's profiles as tar, a run's requests.jsonl; each also as .gz"
)

_HEADERS = (
    f"a known CSV (allowed: {azure.HEADER}; {','.join(vidur.NEEDED)}; {','.join(length_table.VIDUR)}; "
    f"{','.join(burstgpt.NEEDED)}; the last three with further columns)"
)


def open_file(path: str | os.PathLike[str], invalid: Invalid = "error", reading: Reading = AS_IT_IS) -> Trace:
    """The trace in the file ``path``, whatever its format. Raises TraceError.

    ``invalid``: what to do with rows that no serving system could have produced (zero or negative lengths, times that
    are negative, not numbers or out of order, truncated lines): ``error`` refuses the file, ``drop`` leaves them out.
    Either way they are counted: in the message, or in the metadata (``rows_dropped``, with the first examples).
    ``reading`` says what some formats leave open.
    """
    file = Path(path)
    return parse_bytes(file.name, read_bytes(file), invalid, reading)


def parse_bytes(source: str, raw: bytes, invalid: Invalid = "error", reading: Reading = AS_IT_IS) -> Trace:
    """The trace in ``raw``, the content of a file called ``source``."""
    check_invalid(invalid)
    data = decompress(source, raw)
    metadata = {"file": source, "sha256": hashlib.sha256(raw).hexdigest()}
    return _PARSERS[_kind(source, data)](source, data, stem(Path(source)), metadata, invalid, reading)


def _kind(source: str, data: bytes) -> str:
    """The format by its first bytes, or by the file's name."""
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if data.startswith(parquet.MAGIC):
        return "parquet"
    if archive.is_tar(data):
        return "tar"
    if start.startswith(b"{"):
        return _json_kind(data)
    if start.startswith(b"[") and b'"conversations"' in data[:4096]:
        raise TraceError(
            f"{source}: ShareGPT's texts have no lengths until a tokenizer has read them; take a table of lengths "
            f"(semiflow workloads list: sharegpt_lengths) or bundled:sharegpt-like"
        )
    kind = _csv_kind(data)
    if kind is not None:
        return kind
    suffix = source.removesuffix(".gz").rsplit(".", 1)[-1].lower()
    if suffix == "csv" and start:
        raise TraceError(f"{source}, line 1: {shown(','.join(header_of(data)))} is not the header of {_HEADERS}")
    if suffix in _BY_NAME:
        return suffix
    raise TraceError(f"{source}: begins with {shown(start[:20])}, which is no known trace format (allowed: {ALLOWED})")


def _json_kind(data: bytes) -> str:
    first = data[: 1 << 16].split(b"\n", 1)[0]
    if served.is_served(data):
        return "served"
    if b'"chat_id"' in first and b'"parent_chat_id"' in first:
        return "bailian"
    return "weka" if b'"requests"' in data[: 1 << 16] and b'"input_length"' not in first else "jsonl"


def _csv_kind(data: bytes) -> str | None:
    """The format by the columns that the first line names."""
    columns = set(header_of(data))
    if columns >= set(burstgpt.NEEDED):
        return "burstgpt"
    if columns >= set(length_table.VIDUR):
        return "vidur" if vidur.NEEDED[0] in columns else "lengths"
    if data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(azure.HEADER[:9].encode()):
        second = data[:4096].split(b"\n", 2)[1:2]
        placeholder = bool(second) and second[0].startswith(length_table.PLACEHOLDER.encode() + b",")
        return "lengths" if placeholder and columns >= set(length_table.NANOFLOW) else "csv"
    return None


__all__ = ["ALLOWED", "AS_IT_IS", "Invalid", "Reading", "open_file", "parse_bytes"]
