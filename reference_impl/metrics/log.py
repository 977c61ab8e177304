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

from workloads.formats import arrow

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
    "token": ("request", "tokens"),
    "transfer": ("request", "instance", "tokens", "start_s"),
    "join": ("request", "instance"),
    "pause": ("request", "instance"),
    "resume": ("request", "instance"),
    "preempt": ("request", "instance", "tokens"),
    "lost": ("request", "instance", "tokens"),
    "finish": ("request", "tokens"),
    "reject": ("request",),
    "run": ("instance", "lane", "batch", "start_s", "iterations"),
    "partition": ("instance", "tokens", "batch"),
    "start": ("instance", "batch"),
    "ready": ("instance", "lane", "batch", "kv_blocks"),
    "drain": ("instance",),
    "stop": ("instance",),
    "fail": ("instance",),
    "slow": ("instance",),
}
_OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "finish": ("instance",),
    "run": ("tokens", "first_end_s", "step_s", "growth_s", "kv_blocks"),
}
_FLOATS = frozenset({"time_s", "start_s", "first_end_s", "step_s", "growth_s"})
_TEXTS = frozenset({"kind", "lane"})
_COLUMNS = tuple(sorted({"time_s", "kind"}.union(*_REQUIRED.values(), *_OPTIONAL.values())))


class EventLogError(ValueError):
    """An event log that cannot be read or contradicts itself; names the file, the row or request and the remedy."""


@dataclass(frozen=True)
class Rows:
    """The events of one kind, in order. Optional columns hold NaN, or -1 in a column of whole numbers, for null."""

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

    def select(self, places: Ints | Bools) -> Rows:
        """Some of the rows, or all of them in another order."""
        return Rows(self.kind, {name: column[places] for name, column in self.columns.items()})


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
    """Read an ``events.parquet``; void rows are left out. Raises EventLogError where it is no log of this version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from reference_impl.metrics.order import in_order
    from reference_impl.metrics.void import without_void

    try:
        schema = pq.read_schema(path)
        metadata = _metadata(path, schema)
        _check_types(path, schema)
        with pq.ParquetFile(path, read_dictionary=sorted(_TEXTS)) as file:
            parts = _read_batches(path, file)
    except FileNotFoundError as error:
        raise EventLogError(f"{path}: no such event log") from error
    except (pa.ArrowException, OSError) as error:
        raise EventLogError(f"{path}: not a readable parquet file: {' '.join(str(error).split())}") from error
    # popped, so that pieces and whole columns of only one kind are in memory together
    rows = {kind: _join(kind, parts.pop(kind)) for kind in list(parts)}
    return RunLog(without_void(in_order(rows)), metadata)


def _metadata(path: str | Path, schema: Any) -> Mapping[str, Any]:
    missing = [name for name in _COLUMNS if name not in schema.names]
    if missing:
        raise EventLogError(f"{path}: not an event log: no column {', '.join(missing)}")
    raw = (schema.metadata or {}).get(b"semiflow")
    if raw is None:
        raise EventLogError(f"{path}: not an event log: no semiflow metadata")
    try:
        metadata: dict[str, Any] = dict(json.loads(raw))
    except (ValueError, TypeError, RecursionError) as error:
        raise EventLogError(f"{path}: not an event log: its semiflow metadata is no JSON object") from error
    version = metadata.get("schema_version")
    if version != _SCHEMA_VERSION:
        raise EventLogError(f"{path}: event log version {version!r}; this semiflow reads version {_SCHEMA_VERSION}")
    return metadata


def _check_types(path: str | Path, schema: Any) -> None:
    for name in _COLUMNS:
        found, is_text = schema.field(name).type, name in _TEXTS
        if not (arrow.is_text(found) if is_text else arrow.is_number(found)):
            allowed = "text" if is_text else "integers or floats"
            raise EventLogError(f"{path}: not an event log: column {name}: type {found} (allowed: {allowed})")


def _read_batches(path: str | Path, file: Any) -> dict[str, list[dict[str, NDArray[Any]]]]:
    parts: dict[str, list[dict[str, NDArray[Any]]]] = {kind: [] for kind in _REQUIRED}
    first_row = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(_COLUMNS)):
        cells = {name: _cells(name, batch.column(name)) for name in _COLUMNS if name != "kind"}
        kinds, codes = arrow.texts(batch.column("kind"))
        for code, kind in enumerate(kinds):
            places = np.flatnonzero(codes == code)
            if kind in parts:
                parts[kind].append(_take(path, cells, kind, places, first_row))
            elif len(places):
                raise EventLogError(f"{path}: row {first_row + places[0]}: unknown kind {kind!r}")
        first_row += len(batch)
    return parts


def _cells(name: str, column: Any) -> tuple[NDArray[Any], Bools]:
    """A column's values, and which of them are null; a lane becomes its place in LANES, an unknown one null."""
    if name == "lane":
        lanes, codes = arrow.texts(column)
        places = np.array([LANES.index(lane) if lane in LANES else -1 for lane in lanes] + [-1], dtype=np.int64)
        return places[codes], places[codes] < 0
    return arrow.floats(column) if name in _FLOATS else arrow.integers(column), ~arrow.valid(column)


def _take(
    path: str | Path, cells: Mapping[str, tuple[NDArray[Any], Bools]], kind: str, places: Ints, first_row: int
) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {"row": places + first_row}
    for name in ("time_s", *_REQUIRED[kind], *_OPTIONAL.get(kind, ())):
        values, null = cells[name]
        missing = null[places]
        if name in _REQUIRED[kind] and missing.any():
            row = first_row + places[int(np.argmax(missing))]
            raise EventLogError(f"{path}: row {row}: {kind} without {name}")
        columns[name] = values[places]
    return columns


def _join(kind: str, parts: list[dict[str, NDArray[Any]]]) -> Rows:
    names = ("row", "time_s", *_REQUIRED[kind], *_OPTIONAL.get(kind, ()))
    if not parts:
        return Rows(kind, {name: np.empty(0, np.float64 if name in _FLOATS else np.int64) for name in names})
    return Rows(kind, {name: np.concatenate([part[name] for part in parts]) for name in names})
