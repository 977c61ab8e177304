"""A file in the Trace Event format, written event by event: it appears complete or not at all.

Source: "Trace Event Format" (Google, 2016), JSON object format; read by Perfetto and chrome://tracing.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from experiments.config_base import ConfigError

_MB = 1_000_000
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class TraceFile:
    """Takes events as mappings; ``max_mb`` bounds what they take, uncompressed."""

    def __init__(self, file: IO[bytes], max_mb: float) -> None:
        self._file = file
        self._max_bytes = max_mb * _MB
        self.events = 0
        self.size_bytes = 0

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event. Raises ConfigError where the file would grow over its bound."""
        text = (",\n" if self.events else "\n") + _encode(event)
        self.put(text)
        self.events += 1
        if self.size_bytes > self._max_bytes:
            raise ConfigError(
                f"the trace is over {self._max_bytes / _MB:g} MB after {self.events} events; take less of the run with "
                "--from-s and --to-s, leave out --iterations, or raise --max-mb (viewers need several times its size)"
            )

    def put(self, text: str) -> None:
        """Append what is no event."""
        data = text.encode()
        self.size_bytes += len(data)
        self._file.write(data)


@contextlib.contextmanager
def trace_file(path: Path, max_mb: float, about: Mapping[str, Any]) -> Iterator[TraceFile]:
    """Open ``path`` for events, compressed if it ends with ``.gz``; ``about`` becomes ``otherData``."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _opened(partial, packed=path.suffix == ".gz") as target:
            file = TraceFile(target, max_mb)
            file.put(f'{{"displayTimeUnit":"ms","otherData":{_encode(about)},"traceEvents":[')
            yield file
            file.put("\n]}\n")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _opened(path: Path, packed: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as plain:
        if not packed:
            yield plain
            return
        with gzip.GzipFile("", "wb", 6, plain, mtime=0) as file:  # neither name nor time: equal runs, equal files
            yield cast("IO[bytes]", file)
