"""The bytes of a trace file, decompressed where needed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from workloads.errors import TraceError

_GZIP_MAGIC = b"\x1f\x8b"


def read_bytes(path: Path) -> bytes:
    """The bytes of ``path`` as they lie on disk. Raises TraceError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error


def decompress(source: str, data: bytes) -> bytes:
    """``data``, or what it holds if it is gzip (told by its first bytes). Raises TraceError where it is damaged."""
    if not data.startswith(_GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{source}: damaged or truncated gzip file ({error}); fetch it again") from error


def stem(path: Path) -> str:
    """The name of a trace that is named after its file."""
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] or name or "trace"
