"""Tar archives, read in memory: nothing is written to disk, whatever the names inside are."""

from __future__ import annotations

import io
import tarfile

from workloads.errors import TraceError

MAX_BYTES = 8 << 30


def is_tar(data: bytes) -> bool:
    """Whether ``data`` (decompressed) is a tar archive."""
    return data[257:262] == b"ustar"


def members(source: str, data: bytes) -> dict[str, bytes]:
    """The regular files by name, in the order of the archive. Raises TraceError where it is damaged or far too big."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                file = archive.extractfile(member)
                if file is None or member.size > MAX_BYTES:
                    raise TraceError(f"{source}: {member.name!r} cannot be read from the archive")
                found[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{source}: damaged tar archive ({error}); fetch it again") from error
    return found
