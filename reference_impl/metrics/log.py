"""Read an event log into columns, one table per kind of event. What they mean: ``reference_impl/events.py``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LANES = ("mixed", "prefill", "decode")
_SCHEMA_VERSION = 1
_BATCH_ROWS = 1 << 18
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "arrive": ("request", "tokens"),
    "dispatch": ("request", "instance"),
    "admit": ("request", "instance", "tokens"),
    "prefilled": ("request", "instance", "tokens"),
    "transfer": ("request", "instance", "tokens", "start_s"),
    "pause": ("request", "instance"),
    "resume": ("request", "instance"),
    "preempt": ("request", "instance", "tokens"),
    "finish": ("request", "tokens"),
    "reject": ("request",),
    "run": ("instance", "lane", "batch", "start_s", "iterations"),
    "partition": ("instance", "tokens", "batch"),
}
_OPTIONAL: Mapping[str, tuple[str, ...]] = {"run": ("tokens", "first_end_s", "step_s", "growth_s", "kv_blocks")}
_FLOATS = frozenset({"time_s", "start_s", "first_end_s", "step_s", "growth_s"})


class EventLogError(ValueError):
    """An event log that cannot be read or contradicts itself; names the file, the row or request and the remedy."""


@dataclass(frozen=True)
class Rows:
    """The events of one kind, in log order. Optional columns hold NaN, or -1 in a column of whole numbers, for null."""

    kind: str
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["row"])

    def floats(self, name: str) -> Floats:
        """A column of seconds."""
        column: Floats = self.columns[name]
        return column

    def ints(self, name: str) -> Ints:
        """A column of whole numbers; ``row`` is the row's place in the log, ``lane`` an index into LANES."""
        column: Ints = self.columns[name]
        return column


@dataclass(frozen=True, eq=False)
class RunLog:
    """One run: its events by kind, and what the host wrote about itself (``metadata``, see ``events.py``)."""

    rows: Mapping[str, Rows]
    metadata: Mapping[str, Any]

    @cached_property
    def first_arrival_s(self) -> float:
        """Start of the run's window."""
        return float(self.rows["arrive"].floats("time_s").min(initial=np.inf))

    @cached_property
    def last_outcome_s(self) -> float:
        """End of the run's window: the last finish or rejection; without any, the last event."""
        kinds = [kind for kind in ("finish", "reject") if len(self.rows[kind])] or list(self.rows)
        return max(float(self.rows[kind].floats("time_s").max(initial=-np.inf)) for kind in kinds)

    @property
    def makespan_s(self) -> float:
        """From the first arrival to the last outcome."""
        return self.last_outcome_s - self.first_arrival_s

    @property
    def instances(self) -> tuple[Mapping[str, Any], ...]:
        """The instances' descriptions from the metadata."""
        return tuple(self.metadata.get("instances", ()))


def read(path: str | Path) -> RunLog:
    """Read an ``events.parquet``. Raises EventLogError where it is no event log of this version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = _metadata(path, pq.read_schema(path))
        with pq.ParquetFile(path, read_dictionary=["kind", "lane"]) as file:
            parts = _read_batches(path, file)
    except FileNotFoundError as error:
        raise EventLogError(f"{path}: no such event log") from error
    except (pa.ArrowException, OSError) as error:
        raise EventLogError(f"{path}: not a readable parquet file: {' '.join(str(error).split())}") from error
    # popped, so that pieces and whole columns of only one kind are in memory together
    return RunLog({kind: _join(kind, parts.pop(kind)) for kind in list(parts)}, metadata)


def _metadata(path: str | Path, schema: Any) -> Mapping[str, Any]:
    missing = {"time_s", "kind", *_REQUIRED["run"], *_OPTIONAL["run"], "request"} - set(schema.names)
    if missing:
        raise EventLogError(f"{path}: not an event log: no column {', '.join(sorted(missing))}")
    raw = (schema.metadata or {}).get(b"semiflow")
    if raw is None:
        raise EventLogError(f"{path}: not an event log: no semiflow metadata")
    metadata: dict[str, Any] = json.loads(raw)
    version = metadata.get("schema_version")
    if version != _SCHEMA_VERSION:
        raise EventLogError(f"{path}: event log version {version!r}; this semiflow reads version {_SCHEMA_VERSION}")
    return metadata


def _read_batches(path: str | Path, file: Any) -> dict[str, list[dict[str, NDArray[Any]]]]:
    parts: dict[str, list[dict[str, NDArray[Any]]]] = {kind: [] for kind in _REQUIRED}
    first_row = 0
    names = sorted({"time_s", "kind"}.union(*_REQUIRED.values(), *_OPTIONAL.values()))
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names):
        kinds, codes = _dictionary(batch.column("kind"))
        for code, kind in enumerate(kinds):
            places = np.flatnonzero(codes == code)
            if kind not in parts:
                raise EventLogError(f"{path}: row {first_row + places[0]}: unknown kind {kind!r}")
            parts[kind].append(_take(path, batch, kind, places, first_row))
        first_row += len(batch)
    return parts


def _dictionary(column: Any) -> tuple[list[str], Ints]:
    column = column if hasattr(column, "dictionary") else column.dictionary_encode()
    return column.dictionary.to_pylist(), column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _take(path: str | Path, batch: Any, kind: str, places: Ints, first_row: int) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {"row": places + first_row}
    for name in ("time_s", *_REQUIRED[kind], *_OPTIONAL.get(kind, ())):
        column = batch.column(name).take(places) if name != "lane" else batch.column(name)
        if name == "lane":
            values = _lane_codes(column)[places]
            null = values < 0
        else:
            null = column.is_null().to_numpy(zero_copy_only=False)
            fill = np.nan if name in _FLOATS else -1
            values = column.fill_null(fill).to_numpy(zero_copy_only=False)
        if name in _REQUIRED[kind] and null.any():
            row = first_row + places[int(np.argmax(null))]
            raise EventLogError(f"{path}: row {row}: {kind} without {name}")
        columns[name] = values.astype(np.float64 if name in _FLOATS else np.int64)
    return columns


def _lane_codes(column: Any) -> Ints:
    names, codes = _dictionary(column)
    table = np.array([LANES.index(name) if name in LANES else -1 for name in names] + [-1], dtype=np.int64)
    return table[codes]


def _join(kind: str, parts: list[dict[str, NDArray[Any]]]) -> Rows:
    names = ("row", "time_s", *_REQUIRED[kind], *_OPTIONAL.get(kind, ()))
    if not parts:
        return Rows(kind, {name: np.empty(0, np.float64 if name in _FLOATS else np.int64) for name in names})
    return Rows(kind, {name: np.concatenate([part[name] for part in parts]) for name in names})
