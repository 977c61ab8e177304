"""Public traces by name: what they are, where they come from, under which licence, and where they lie on this machine.

The entries are facts in ``data/catalog.json``; no trace data is shipped. Files are looked for in the folder that the
environment variable SEMIFLOW_TRACES names, then in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from pathlib import Path

from workloads.errors import TraceError, shown
from workloads.formats import AS_IT_IS, Invalid, Reading, open_file, parse_bytes
from workloads.formats.source import decompress, read_bytes
from workloads.settle import check_invalid
from workloads.synthetic import bundled
from workloads.trace import Trace
from workloads.transform import derive

TRACES_VARIABLE = "SEMIFLOW_TRACES"
CACHE_VARIABLE = "SEMIFLOW_CACHE"


@dataclass(frozen=True)
class CatalogEntry:
    """One named public trace."""

    name: str
    title: str
    kind: str
    origin: str
    licence: str
    url: str
    source_sha256: str | None
    """Of the file behind ``url``, uncompressed; None where nobody published one."""
    source_is_readable: bool
    """Whether the file behind ``url`` is in a format that we read."""
    source_window_s: float | None
    """The trace is only the first so many seconds of that file."""
    file: str | None
    """Name of the converted file (shared parquet format), where there is one."""
    file_sha256: str | None
    rows: int | None
    block_tokens: int | None
    """Prompt tokens per prefix id; None without prefix ids."""
    unsupported: str | None
    """Why it cannot be opened yet; None where it can."""
    notes: str

    def file_names(self) -> tuple[str, ...]:
        """The names under which the trace may lie in a folder, best first."""
        source = self.source_name()
        names = [self.file or f"{self.name}.parquet"]
        if self.source_is_readable:
            names += [self.converted_name(), source, f"{source}.gz"]
        return tuple(names)

    def source_name(self) -> str:
        """The name of the file behind ``url``."""
        return self.url.rsplit("/", 1)[-1]

    def converted_name(self) -> str:
        """The name of the file that :mod:`workloads.fetch` makes of it."""
        return f"{self.name}.semiflow.parquet"


@cache
def entries() -> tuple[CatalogEntry, ...]:
    """All named traces, those that cannot be opened yet included."""
    text = (Path(__file__).parent / "data" / "catalog.json").read_text(encoding="utf-8")
    return tuple(CatalogEntry(**entry) for entry in json.loads(text))


def entry(name: str) -> CatalogEntry:
    """The entry called ``name``. Raises TraceError that shows those that can be fetched, the nearest first."""
    found = _named(name)
    if found is not None:
        return found
    if name.startswith(bundled.PREFIX):
        raise TraceError(f"{shown(name)} is generated, so there is nothing to fetch; use it by this name")
    choices = [entry.name for entry in entries() if entry.source_is_readable and not entry.unsupported]
    nearest = sorted(choices, key=lambda choice: -SequenceMatcher(None, name, choice).ratio())
    raise TraceError(f"no public trace is called {shown(name)} (allowed: {', '.join(nearest)})")


def _named(name: str) -> CatalogEntry | None:
    return next((candidate for candidate in entries() if candidate.name == name), None)


def _unknown(name: str) -> TraceError:
    choices = [candidate.name for candidate in entries() if not candidate.unsupported] + bundled.names()
    close = get_close_matches(name, choices, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return TraceError(
        f"{shown(name)} is neither a file nor a named trace{hint} "
        f"(allowed: the path of a trace file, {', '.join(choices)}; see `semiflow workloads list`)"
    )


def folders() -> tuple[Path, ...]:
    """Where traces are looked for, in this order. Raises TraceError where SEMIFLOW_TRACES is not absolute."""
    found = []
    traces = os.environ.get(TRACES_VARIABLE)
    if traces:
        if not os.path.isabs(traces):
            raise TraceError(f"{TRACES_VARIABLE}={traces!r} (allowed: an absolute path of a folder)")
        found.append(Path(traces))
    return (*found, cache_folder())


def cache_folder() -> Path:
    """Where fetched traces are kept."""
    return Path(os.environ.get(CACHE_VARIABLE) or os.path.expanduser("~/.cache/semiflow/traces"))


def find(wanted: CatalogEntry) -> Path | None:
    """The file of this trace on this machine, or None."""
    for folder in folders():
        for name in wanted.file_names():
            if (folder / name).is_file():
                return folder / name
    return None


def open_trace(name_or_path: str | os.PathLike[str], invalid: Invalid = "error", reading: Reading = AS_IT_IS) -> Trace:
    """A trace by path, by catalogue name, or generated: ``bundled:NAME[:rate_rps=..,requests=..,seed=..]``.

    ``invalid`` and ``reading`` as in :func:`workloads.formats.open_file`. A named trace must have the published
    checksum. Raises TraceError, which for a trace that is not at hand says where to get it and where it was looked for.
    """
    check_invalid(invalid)
    text = os.fspath(name_or_path)
    if text.startswith(bundled.PREFIX):
        reading.check(text, "a bundled workload")
        return bundled.open_bundled(text)
    if os.path.isfile(text):
        return open_file(text, invalid, reading)
    if isinstance(name_or_path, os.PathLike) or _looks_like_a_path(text):
        raise TraceError(f"{text}: not a file; name a trace file, or one that `semiflow workloads list` shows")
    wanted = _named(text)
    if wanted is None:
        raise _unknown(text)
    return _open_entry(wanted, invalid, reading)


def _looks_like_a_path(text: str) -> bool:
    return os.sep in text or text.endswith((".parquet", ".csv", ".jsonl", ".json", ".gz"))


def _open_entry(wanted: CatalogEntry, invalid: Invalid, reading: Reading) -> Trace:
    if wanted.unsupported:
        raise TraceError(f"{wanted.name} cannot be opened yet: {wanted.unsupported}; its url: {wanted.url}")
    path = find(wanted)
    if path is None:
        raise TraceError(_not_at_hand(wanted))
    if path.name == wanted.converted_name():
        return _open_converted(wanted, path, invalid, reading)
    return open_source(wanted, path, invalid, reading)


def _open_converted(wanted: CatalogEntry, path: Path, invalid: Invalid, reading: Reading) -> Trace:
    """What :mod:`workloads.fetch` made, if it is of the published file and nothing was left out unasked."""
    trace = open_file(path, invalid, reading)
    found = trace.metadata.get("source_sha256")
    if wanted.source_sha256 is not None and found != wanted.source_sha256:
        raise TraceError(f"{path}: made of a file with sha256 {found}, not {wanted.source_sha256}: fetch it again")
    dropped = trace.metadata.get("rows_dropped", "0")
    if invalid == "error" and dropped != "0":
        rows = trace.metadata.get("rows", "its")
        raise TraceError(
            f"{wanted.name}: {dropped} of {rows} rows were dropped when it was fetched; say --invalid drop"
        )
    return trace


def open_source(wanted: CatalogEntry, path: Path, invalid: Invalid, reading: Reading = AS_IT_IS) -> Trace:
    """The trace ``wanted`` in the file ``path``, which must have its published checksum. Raises TraceError."""
    raw = read_bytes(path)
    _check_sum(wanted, path, raw)
    trace = parse_bytes(path.name, raw, invalid, reading)
    is_source = path.name != wanted.file_names()[0]
    if is_source and wanted.source_window_s is not None:
        trace = trace.window(0.0, wanted.source_window_s)
    facts = {"source_url": wanted.url, "licence": wanted.licence, "origin": wanted.origin}
    return derive(trace, None, name=wanted.name, metadata={**trace.metadata, **facts})


def _check_sum(wanted: CatalogEntry, path: Path, raw: bytes) -> None:
    is_source = path.name != wanted.file_names()[0]
    expected = wanted.source_sha256 if is_source else wanted.file_sha256
    data = decompress(path.name, raw) if is_source else raw
    found = hashlib.sha256(data).hexdigest()
    if expected is not None and found != expected:
        raise TraceError(
            f"{path}: sha256 {found} is not that of {wanted.name} ({expected}): fetch it again, "
            f"or give the file's path instead of the name to open it as it is"
        )


def _not_at_hand(wanted: CatalogEntry) -> str:
    variable = "" if os.environ.get(TRACES_VARIABLE) else f"; {TRACES_VARIABLE} is not set"
    looked = ", ".join(map(str, folders()))
    names = " or ".join(wanted.file_names())
    checksum = f", sha256 {wanted.source_sha256}" if wanted.source_sha256 else ""
    if wanted.source_is_readable:
        get = f"Get it by `semiflow workloads fetch {wanted.name}`, or put it there"
    else:
        get = "Convert it to the shared parquet format and put it there"
    return (
        f"{wanted.name} is not at hand: looked in {looked} for {names}{variable}. {get}: "
        f"{wanted.url} (licence {wanted.licence}{checksum})"
    )
