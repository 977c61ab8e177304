"""Public traces from their sources: fetched, checked, converted, kept in the cache folder."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

from workloads.catalog import CatalogEntry, cache_folder, find, open_source
from workloads.download import Report, download
from workloads.errors import TraceError
from workloads.formats import Invalid
from workloads.settle import check_invalid
from workloads.storage import save
from workloads.trace import Trace
from workloads.transform import derive

_CHUNK = 1 << 20
NO_CHECKSUM = "the source publishes no checksum: nothing tells a changed or damaged file from the real one"


class Fetched(NamedTuple):
    """What :func:`fetch` left behind."""

    source: Path
    converted: Path
    sha256: str
    """Of the source as found, uncompressed."""
    trace: Trace


def terms(wanted: CatalogEntry) -> dict[str, str]:
    """What a user should know before fetching: where from, what vouches for it, under which licence."""
    return {
        "name": wanted.name,
        "url": wanted.url,
        "sha256": wanted.source_sha256 or f"none ({NO_CHECKSUM})",
        "licence": wanted.licence,
        "origin": wanted.origin,
    }


def fetch(wanted: CatalogEntry, invalid: Invalid = "error", report: Report | None = None) -> Fetched:
    """Fetch the source of ``wanted`` into the cache folder and convert it. Raises TraceError.

    The source is checked against the published sha256, if there is one, and deleted where it differs. What is here
    already is not fetched again. The conversion is what :func:`workloads.catalog.open_trace` opens by name.
    """
    check_invalid(invalid)
    if wanted.unsupported or not wanted.source_is_readable:
        raise TraceError(f"{wanted.name} cannot be fetched: {wanted.unsupported or _unreadable(wanted)}")
    source = cache_folder() / wanted.source_name()
    if not source.is_file():
        download(wanted.url, source, report, verified=wanted.source_sha256 is not None)
    found = _sha256(source)
    if wanted.source_sha256 is not None and found != wanted.source_sha256:
        source.unlink()
        raise TraceError(
            f"{wanted.url}: sha256 {found} is not the published {wanted.source_sha256}; nothing was kept. "
            f"Either the transfer was damaged (fetch it again) or the source has changed"
        )
    trace = open_source(wanted, source, invalid)
    trace = derive(trace, None, metadata={**trace.metadata, "source_sha256": found})
    converted = cache_folder() / wanted.converted_name()
    save(trace, converted)
    return Fetched(source, converted, found, trace)


def _unreadable(wanted: CatalogEntry) -> str:
    here = find(wanted)
    where = f"; it is here already: {here}" if here else ""
    return f"the source is in a format that semiflow does not read{where}"


def _sha256(path: Path) -> str:
    """Of the content, uncompressed, without holding it in memory."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read ({error}); delete it and fetch it again") from error
    return digest.hexdigest()
