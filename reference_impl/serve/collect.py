"""From the spool of a live run to its event log and its requests.

Where the two disagree on how a request ended, its front door is right: an instance may have finished what nobody
waited for any more, or may have been killed with rows that it could not hand in.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reference_impl.events import ROW_FIELDS, EventLog
from reference_impl.serve.spool import LogRows, read_spool

_CHUNK_ROWS = 65_536


class Collected(NamedTuple):
    """What there was."""

    requests: int
    """That have arrived."""
    orphans: int
    """Rows left out, for their request's arrival was never logged: its front door was killed that very moment."""
    mended: int
    """Finished requests whose tokens had to be told from what their front door saw."""


def collect(spool: Path, events: Path, requests: Path, metadata: Mapping[str, Any]) -> Collected:
    """Write ``events`` (parquet, in order of time) and ``requests`` (a JSON object a line) from a spool."""
    rows = _rows(spool)
    lines = rows.pop("request", [])
    arrived = {row[_place("arrive", "request")] for row in rows.get("arrive", ())}
    orphans = sum(_drop(kind, kept, lambda request: request not in arrived) for kind, kept in rows.items())
    mended = _mend(rows, lines)
    with requests.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    with EventLog(events, metadata) as log:
        for chunk in _by_time(rows):
            log.put(chunk)
            log.flush_if_full()
    return Collected(len(arrived), orphans, mended)


def _rows(spool: Path) -> LogRows:
    found: LogRows = defaultdict(list)
    if spool.exists():
        for batch in read_spool(spool):
            for kind, rows in batch.rows().items():
                found[kind] += rows
    return found


def _place(kind: str, name: str) -> int:
    return ROW_FIELDS[kind].index(name)


def _drop(kind: str, rows: list[tuple[Any, ...]], unwanted: Callable[[int], bool]) -> int:
    """Remove the rows of unwanted requests; how many."""
    if "request" not in ROW_FIELDS[kind]:
        return 0
    place = _place(kind, "request")
    kept = [row for row in rows if not unwanted(row[place])]
    dropped = len(rows) - len(kept)
    rows[:] = kept
    return dropped


def _mend(rows: LogRows, lines: Sequence[Mapping[str, Any]]) -> int:
    """Let every request end as its front door says; how many lacked their end."""
    finished = {line["request"]: line for line in lines if line["outcome"] == "finished"}
    others = {line["request"] for line in lines} - finished.keys()
    _drop("finish", rows["finish"], lambda request: request in others)
    place = _place("finish", "request")
    missing = finished.keys() - {row[place] for row in rows["finish"]}
    for request in sorted(missing):
        line = finished[request]
        count = line["output_tokens"]
        if count:
            rows["token"].append((line["first_token_s"], request, 1))
            rows["token"].append((line["last_token_s"], request, count))
        rows["finish"].append((line["last_token_s"] or line["end_s"], request, None, None, count))
    return len(missing)


def _by_time(rows: LogRows) -> Iterator[LogRows]:
    """The rows in chunks, each later than the one before."""
    flat = [(row[_place(kind, "time_s")], kind, row) for kind, kept in rows.items() for row in kept]
    flat.sort(key=lambda entry: entry[0])
    for start in range(0, len(flat), _CHUNK_ROWS):
        chunk: LogRows = defaultdict(list)
        for _, kind, row in flat[start : start + _CHUNK_ROWS]:
            chunk[kind].append(row)
        yield chunk
