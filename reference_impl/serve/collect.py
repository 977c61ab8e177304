"""From the spool of a live run to its event log and its requests.

Where the two disagree on how a request ended, its front door is right: an instance may have finished what nobody
waited for any more, or may have been killed with rows that it could not hand in.

The spool is read twice, a batch at a time: what is held is some numbers for each request, never all rows. So rows are
in order of time within 65,536 of them only, which is what the event log promises.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from reference_impl.events import ROW_FIELDS, EventLog
from reference_impl.request_labels import LABELS, packed
from reference_impl.serve.spool import LogRows, read_spool

_CHUNK_ROWS = 4096
_REQUEST_AT = {kind: fields.index("request") for kind, fields in ROW_FIELDS.items() if "request" in fields}


class Collected(NamedTuple):
    """What there was."""

    requests: int
    """That have arrived."""
    orphans: int
    """Rows left out, for their request's arrival was never logged: its front door was killed that very moment."""
    mended: int
    """Finished requests whose tokens had to be told from what their front door saw."""


def collect(spool: Path, events: Path, requests: Path, metadata: Mapping[str, Any]) -> Collected:
    """Write ``events`` (parquet) and ``requests`` (a JSON object a line) from a spool; neither is left half-written."""
    partial = requests.with_name(f"{requests.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            ends = _ends(spool, file.write)
        mended = ends.mended()
        with EventLog(events, {**metadata, **ends.labels()}) as log:
            orphans = _put(log, spool, ends)
            log.put(mended)
        os.replace(partial, requests)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return Collected(len(ends.arrived), orphans, len(mended["finish"]))


@dataclass
class _Ends:
    """How the requests ended."""

    arrived: set[int] = field(default_factory=set)
    logged: set[int] = field(default_factory=set)
    """Whose end some instance has logged."""
    finished: dict[int, tuple[int, float | None, float | None, float]] = field(default_factory=dict)
    """As their front door says: tokens, time of the first and the last one, end."""
    unfinished: set[int] = field(default_factory=set)
    labelled: dict[int, dict[str, str | None]] = field(default_factory=dict)
    """Tenant and SLO class, of requests that have one."""

    def note(self, line: Mapping[str, Any]) -> None:
        """What a front door says of a request."""
        request = line["request"]
        if any(line.get(kind) for kind in LABELS):
            self.labelled[request] = {kind: line.get(kind) for kind in LABELS}
        if line["outcome"] == "finished":
            seen = (line["output_tokens"], line["first_token_s"], line["last_token_s"], line["end_s"])
            self.finished[request] = seen
            self.unfinished.discard(request)
        elif request not in self.finished:
            self.unfinished.add(request)

    def labels(self) -> dict[str, Any]:
        """What the event log's metadata says of them."""
        requests = range(max(self.labelled, default=-1) + 1)
        return packed({kind: [self.labelled.get(each, {}).get(kind) for each in requests] for kind in LABELS})

    def mended(self) -> LogRows:
        """Rows of finished requests that lack their end."""
        rows: LogRows = {"token": [], "finish": []}
        for request in sorted((self.finished.keys() - self.logged) & self.arrived):
            count, first_s, last_s, end_s = self.finished[request]
            if count:
                rows["token"] += [(first_s, request, 1), (last_s, request, count)]
            rows["finish"].append((last_s or end_s, request, None, None, count))
        return rows

    def counts(self, kind: str, request: int) -> bool:
        """Whether a row of an arrived request is to be kept."""
        return kind != "finish" or request not in self.unfinished


def _batches(spool: Path) -> Iterator[LogRows]:
    if spool.exists():
        for batch in read_spool(spool):
            yield batch.rows()


def _ends(spool: Path, write: Callable[[str], object]) -> _Ends:
    """The first reading; the front doors' lines are written."""
    ends = _Ends()
    for rows in _batches(spool):
        for line in rows.get("request", ()):
            ends.note(line)
            write(json.dumps(line) + "\n")
        ends.arrived.update(row[_REQUEST_AT["arrive"]] for row in rows.get("arrive", ()))
        ends.logged.update(row[_REQUEST_AT["finish"]] for row in rows.get("finish", ()))
    return ends


def _put(log: EventLog, spool: Path, ends: _Ends) -> int:
    """The second reading, into the log; how many rows were left out since their request never arrived."""
    orphans = gathered = 0
    for rows in _batches(spool):
        for kind, found in rows.items():
            if kind == "request":
                continue
            if (place := _REQUEST_AT.get(kind)) is not None:
                arrived = [row for row in found if row[place] in ends.arrived]
                orphans += len(found) - len(arrived)
                found = [row for row in arrived if ends.counts(kind, row[place])]
            log.put({kind: found})
            gathered += len(found)
        if gathered >= _CHUNK_ROWS:
            log.flush_if_full()
            gathered = 0
    return orphans
