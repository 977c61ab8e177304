"""The one event log: what every host emits, and how every token time is rebuilt from it.

One row per event. Columns that do not apply hold null. The columns:

========== ======= ==========================================================================================
time_s     float64 when it happened; of a run: the end of its last iteration
kind       string  see below
request    int32   row number in the trace; of a live deployment: the number that it gave the request
instance   int32   instance id
lane       string  ``mixed``, ``prefill`` or ``decode``
tokens     int32   see below
batch      int32   see below
start_s    float64 start of a run or of a transfer
iterations int32   iterations of a run
first_end_s float64 end of a run's first iteration
step_s     float64 duration of a run's second iteration
growth_s   float64 by how much each further iteration is longer than the one before
kv_blocks  int32   KV blocks in use (cached prefixes without a user not counted) at the end of a run
reason     string  why a policy decided so, or why a request failed
========== ======= ==========================================================================================

The kinds:

``arrive``     the request reached the front door; tokens = prompt tokens
``dispatch``   a job executor sent it to ``instance``
``admit``      the instance admitted it to its batch; tokens = prompt tokens found in the prefix cache
``prefilled``  its prompt is computed and this moment yields a token; tokens = tokens generated, this one included.
               On a colocated or semi-PD instance it takes part in the decodes of that instance from here on, unless
               its next row is a ``transfer``: then it only waits there
``transfer``   its KV was handed over to ``instance`` between start_s and time_s; tokens = tokens of KV;
               it takes part in the decodes of that instance from here on. Where ``instance`` is the one that
               prefilled it, it waited there since start_s to be handed over, and stays (``core/standstill.py``)
``join``       it takes part in the decodes of ``instance`` only from here on, not since its ``prefilled`` or
               ``transfer`` row: an iteration that began in between had been planned before; tokens = tokens generated
``pause`` / ``resume``  a plan skips this decode / takes it back; tokens = tokens generated so far
``preempt``    dropped from ``instance``; tokens = tokens generated so far; it will be admitted again
``lost``       dropped because ``instance`` failed, or drains and nobody takes it over; tokens = tokens that its
               client was given so far; it will be dispatched again
``token``      its client was given tokens; tokens = tokens given, these included
``finish``     its last token; tokens = output tokens; no instance: it ended on its way from one to another
``reject``     refused, failed for good, or given up by its client; reason says why
``run``        ``iterations`` equal iterations of one lane; tokens = prompt tokens computed in all of them,
               batch = decodes in each
``partition``  the shares of ``instance`` changed; tokens = prefill percent, batch = decode percent
``start``      ``instance`` begins to start, in its first role or another one: it costs from here on; batch = devices
``ready``      ``instance`` serves from here on: one row for each of its lanes; batch = devices, kv_blocks = its pool
``drain``      ``instance`` gets no new requests
``stop``       ``instance`` is gone, having drained: it costs nothing any more
``fail``       ``instance`` is gone: it costs nothing any more, and its requests have ``lost`` rows. An iteration that
               was under way has no row
``slow``       iterations of ``instance`` take longer from here on, or as long as ever; reason says how much

Rows of instances (the last six kinds) are logged where the fleet may change. They then begin with ``ready`` rows of the
configured instances, which cost from there on; without any, those of the metadata are there all the time.

End of iteration j = 1, 2, ... of a run: ``first_end_s + (j-1) step_s + growth_s (j-1)(j-2)/2``. A request's tokens
are: one at each of its ``prefilled`` rows, and one at the end of each iteration with decodes that its instance's
decode lane (``mixed`` or ``decode``) started and ended while the request took part; an iteration that starts in the
moment in which the request joins is one of them. Times that round to the same nanosecond are one moment.

Where instances fail, their rows may say more than happened, or, when they went with the instance, less:

- Up to a ``lost`` row the request has the number of tokens that the row says: the first ones of those above count, and
  where rows are missing, the missing tokens count at the moment of the ``lost`` row. A ``finish`` before it is void.
- What ``instance`` says of the request after a ``lost`` row is void, until it is dispatched or handed over there again;
  what any instance says, until it is dispatched again.
- ``token`` rows say what a client saw, and stand in place of all of the above up to the last of them. They are what a
  client logs that measures a server from outside; a front door may log them before a ``lost`` row. Tokens of one row
  came together: there is one gap between two rows, however many tokens they carry.

The metadata (key ``semiflow`` of the file, JSON) holds what the host says of itself: ``schema_version``, ``slo``,
``instances``, ``policies``, ... and the requests' tenants and SLO classes (``reference_impl/request_labels.py``).

A row may be logged later than others of its time: within a row group rows are ordered by time and, within one moment,
by kind (:data:`ROW_FIELDS`), but where several processes log, a row group may hold rows that are older than the row
group before it. Whoever needs the order sorts (``metrics.read`` does).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from reference_impl.event_table import column, interleaved

SCHEMA_VERSION = 1
_FLUSH_ROWS = 65_536


class Event(NamedTuple):
    """One row of the log, as it is read back."""

    time_s: float
    kind: str
    request: int | None = None
    instance: int | None = None
    lane: str | None = None
    tokens: int | None = None
    batch: int | None = None
    start_s: float | None = None
    iterations: int | None = None
    first_end_s: float | None = None
    step_s: float | None = None
    growth_s: float | None = None
    kv_blocks: int | None = None
    reason: str | None = None


_TYPES: dict[str, pa.DataType] = {
    "time_s": pa.float64(),
    "kind": pa.string(),
    "request": pa.int32(),
    "instance": pa.int32(),
    "lane": pa.string(),
    "tokens": pa.int32(),
    "batch": pa.int32(),
    "start_s": pa.float64(),
    "iterations": pa.int32(),
    "first_end_s": pa.float64(),
    "step_s": pa.float64(),
    "growth_s": pa.float64(),
    "kv_blocks": pa.int32(),
    "reason": pa.string(),
}
SCHEMA = pa.schema([pa.field(name, type_, nullable=name not in ("time_s", "kind")) for name, type_ in _TYPES.items()])


ROW_FIELDS: dict[str, tuple[str, ...]] = {
    "run": (
        *("time_s", "instance", "lane", "tokens", "batch", "start_s", "iterations"),
        *("first_end_s", "step_s", "growth_s", "kv_blocks"),
    ),
    "prefilled": ("time_s", "request", "instance", "lane", "tokens"),
    "token": ("time_s", "request", "tokens"),
    "finish": ("time_s", "request", "instance", "lane", "tokens"),
    "transfer": ("time_s", "request", "instance", "lane", "tokens", "start_s"),
    "fleet": ("time_s", "kind", "instance", "lane", "batch", "kv_blocks", "reason"),
    "change": ("time_s", "kind", "request", "instance", "lane", "tokens", "reason"),
    "arrive": ("time_s", "request", "tokens"),
    "dispatch": ("time_s", "request", "instance", "reason"),
    "reject": ("time_s", "request", "reason"),
    "admit": ("time_s", "request", "instance", "lane", "tokens"),
    "partition": ("time_s", "instance", "tokens", "batch", "reason"),
}
"""The fields of each list's rows, in order; a list is a kind, or names the kind in each row. Lists stand in the order
in which the events of one moment are logged: what a moment ends comes before what it begins."""


FLEET_KINDS = ("start", "ready", "drain", "stop", "fail", "slow")
"""What the rows of the list ``fleet`` say of an instance."""


class EventLog:
    """Collects rows by kind and writes them as one parquet file.

    A host appends tuples shaped by :data:`ROW_FIELDS` to the list of a kind (``log.run.append(...)``) and calls
    :meth:`flush_if_full` now and then.  As a context manager: on a clean exit the file appears under its final
    name, on an error nothing is left behind.  ``path=None`` keeps the rows in memory (:meth:`table`).

    Of several processes each appends to a log of its own; what one gives away (:meth:`take`), another one puts into the
    log that is written (:meth:`put`).
    """

    def __init__(self, path: Path | None, metadata: Mapping[str, Any] | None = None) -> None:
        self.run: list[tuple[Any, ...]] = []
        self.prefilled: list[tuple[Any, ...]] = []
        self.token: list[tuple[Any, ...]] = []
        self.finish: list[tuple[Any, ...]] = []
        self.change: list[tuple[Any, ...]] = []
        """``join``, ``pause``, ``resume``, ``preempt`` and ``lost``, which one moment can bring in any order."""
        self.transfer: list[tuple[Any, ...]] = []
        self.fleet: list[tuple[Any, ...]] = []
        """Those of :data:`FLEET_KINDS`."""
        self.arrive: list[tuple[Any, ...]] = []
        self.dispatch: list[tuple[Any, ...]] = []
        self.reject: list[tuple[Any, ...]] = []
        self.admit: list[tuple[Any, ...]] = []
        self.partition: list[tuple[Any, ...]] = []
        self._gathered: dict[str, dict[str, list[NDArray[Any]]]] = {}
        self._gathered_rows = 0
        self._texts: dict[str | None, int] = {None: -1}
        self._schema = SCHEMA.with_metadata({"semiflow": json.dumps(dict(metadata or {}), sort_keys=True)})
        self._tables: list[pa.Table] = []
        self._path = path
        self._partial = path.with_name(path.name + ".partial") if path else None
        self._writer = _writer(self._partial, self._schema) if self._partial else None

    def take(self) -> dict[str, list[tuple[Any, ...]]]:
        """The rows appended since the last call, by list; the log forgets them. Lists without rows are left out."""
        taken = {kind: list(getattr(self, kind)) for kind in ROW_FIELDS if getattr(self, kind)}
        for kind in taken:
            getattr(self, kind).clear()
        return taken

    def put(self, rows: Mapping[str, Iterable[Sequence[Any]]]) -> None:
        """Append rows that another log gave (:meth:`take`), perhaps over a wire that made lists of the tuples."""
        for kind, more in rows.items():
            if kind not in ROW_FIELDS:
                raise ValueError(f"rows of {kind!r} were put into an event log; allowed: {', '.join(ROW_FIELDS)}")
            getattr(self, kind).extend(tuple(row) for row in more)

    def flush_if_full(self) -> None:
        """Put the rows away as columns, and write a row group once enough of them have gathered."""
        self._gather()
        if self._gathered_rows >= _FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered as one row group, ordered by (time, kind, order of appending)."""
        self._gather()
        if not self._gathered_rows:
            return
        gathered = {kind: self._gathered[kind] for kind in ROW_FIELDS if kind in self._gathered}
        table = interleaved(gathered, [text for text in self._texts if text is not None], self._schema)
        self._gathered = {}
        self._gathered_rows = 0
        self._texts = {None: -1}
        if self._writer is None:
            self._tables.append(table)
        else:
            self._writer.write_table(table, row_group_size=table.num_rows)

    def table(self) -> pa.Table:
        """All rows of an in-memory log."""
        if self._writer is not None:
            raise ValueError(f"the rows of this log went to {self._path}; read them from there")
        self.flush()
        return pa.concat_tables(self._tables) if self._tables else self._schema.empty_table()

    def close(self) -> None:
        """Write the rest and give the file its final name."""
        self.flush()
        if self._writer is not None and self._partial is not None and self._path is not None:
            self._writer.close()
            os.replace(self._partial, self._path)

    def discard(self) -> None:
        """Drop everything; no file is left."""
        if self._writer is not None and self._partial is not None:
            with contextlib.suppress(OSError):  # the disk may be full: only the unlinking matters
                self._writer.close()
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _gather(self) -> None:
        """Turn the rows appended so far into columns: while they are fresh this is cheap, and it frees the rows."""
        for kind, fields in ROW_FIELDS.items():
            rows: list[tuple[Any, ...]] = getattr(self, kind)
            if rows:
                parts = self._gathered.setdefault(kind, {name: [] for name in fields})
                for name, cells in zip(fields, zip(*rows, strict=True), strict=True):
                    parts[name].append(column(cells, _TYPES[name], self._texts))
                self._gathered_rows += len(rows)
                rows.clear()


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    texts = [name for name, type_ in _TYPES.items() if type_ == pa.string()]
    try:
        return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=texts)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
