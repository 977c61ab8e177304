"""Instant events: whatever the log holds beside iterations and the phases of requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.insight.tracing.window import THREADS, Event, Window, process

_DRAWN = ("run", "arrive", "dispatch", "admit", "prefilled", "token", "transfer", "join", "finish")
"""Kinds that are seen as slices, phases or arrows."""
_COLUMNS = ["time_s", "kind", "request", "instance", "lane", "tokens", "batch", "reason"]


def marks(events: Path, window: Window) -> Iterator[Event]:
    """Preemptions, refusals, switched partitions, failures, with their reasons."""
    import pyarrow.parquet as pq

    for row in pq.read_table(events, columns=_COLUMNS, filters=[("kind", "not in", _DRAWN)]).to_pylist():
        time_s, kind, instance, lane = (row.pop(name) for name in ("time_s", "kind", "instance", "lane"))
        if not window.from_s <= time_s <= window.to_s:
            continue
        if kind == "partition":
            row = {"prefill_pct": row["tokens"], "decode_pct": row["batch"], "reason": row["reason"]}
        yield {
            "ph": "i",
            "name": kind,
            "cat": "event",
            "s": "t" if lane else "p",
            "pid": process(instance),
            "tid": THREADS.get(lane, 0),
            "ts": window.us(time_s),
            "args": {name: cell for name, cell in row.items() if cell is not None},
        }
