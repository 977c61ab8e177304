"""Traces on disk: parquet with the trace's metadata inside."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from workloads.errors import TraceError
from workloads.formats import parquet
from workloads.formats.arrow import to_arrow
from workloads.formats.saved import OWN_KEY, write_notes
from workloads.formats.source import decompress, read_bytes, stem
from workloads.prefix import flatten
from workloads.trace import Trace
from workloads.transform import LABELS


def save(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write ``trace`` to ``path``, whole or not at all (a temporary file beside it, then a rename).

    Equal traces give equal bytes. Raises TraceError where the folder is missing or cannot be written to.
    """
    import pyarrow.parquet as pq

    target = Path(path)
    table = _table(trace)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            pq.write_table(table, file, compression="zstd")
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        raise TraceError(f"{target}: the trace cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Trace:
    """The trace that :func:`save` wrote to ``path`` (or one in the shared parquet format). Raises TraceError."""
    source = Path(path)
    return parquet.parse(source.name, decompress(source.name, read_bytes(source)), stem(source), {}, "error")


def _table(trace: Trace) -> Any:  # Any: pyarrow ships no types
    import pyarrow as pa

    columns: dict[str, Any] = {
        "arrival_s": to_arrow(trace.arrival_s, pa.float64()),
        "prompt_tokens": to_arrow(trace.prompt_tokens, pa.int32()),
        "output_tokens": to_arrow(trace.output_tokens, pa.int32()),
    }
    if trace.prefix_ids is not None:
        flat = flatten(trace.name, trace.prefix_ids)
        offsets = to_arrow(flat.offsets.astype(np.int32), pa.int32())
        columns["prefix_ids"] = pa.ListArray.from_arrays(offsets, to_arrow(flat.ids, pa.int64()))
    for label in LABELS:
        values = getattr(trace, label)
        if values is not None:
            columns[label] = pa.array(values, type=pa.string())
    for name, arrow_type in (("turn", pa.int32()), ("parent_row", pa.int64()), ("think_s", pa.float64())):
        column = getattr(trace, name)
        if column is not None:
            columns[name] = to_arrow(column, arrow_type)
    table = pa.Table.from_arrays(list(columns.values()), names=list(columns))
    return table.replace_schema_metadata({OWN_KEY: write_notes(trace)})
