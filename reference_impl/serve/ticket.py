"""What a front door notes of each request: its times, whether it met its targets, and its line in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reference_impl.core.spec import Slo
from reference_impl.core.tally import Counts, finished
from reference_impl.engine.api import FinishReason, SampledToken
from reference_impl.serve.http.delta_stream import DeltaStream
from reference_impl.serve.job import Job, Note
from reference_impl.serve.spool import LogRows


@dataclass(slots=True)
class Ticket:
    """One request of a front door."""

    job: Job
    stream: DeltaStream
    executor: int | None = None
    """The job executor that was asked last; None: there was none to ask."""
    alarm: asyncio.TimerHandle | None = None
    """Ends the wait for one, while there is none."""
    first_token_s: float | None = None
    last_token_s: float | None = None
    finish: FinishReason | None = None

    def stop_alarm(self) -> None:
        """There is nothing to wait for any more, or the wait begins anew."""
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None

    def took(self, tokens: tuple[SampledToken, ...], finish: FinishReason | None, now_s: float) -> None:
        """Tokens for the client."""
        if tokens:
            self.first_token_s = now_s if self.first_token_s is None else self.first_token_s
            self.last_token_s = now_s
        self.finish = finish

    def counts(self, slo: Slo | None) -> Counts:
        """What a finished request adds to the counts, by this front door's clock."""
        view, first_s, last_s = self.job.request.view, self.first_token_s, self.last_token_s
        since_arrival_s = None if first_s is None else first_s - view.arrival_s
        targets = slo and slo.of(view.slo_class)
        return finished(
            view.prompt_tokens, len(self.job.tokens), since_arrival_s, (last_s or 0.0) - view.arrival_s, targets
        )

    def line(self, now_s: float) -> dict[str, Any]:
        """The request in the run's ``requests.jsonl``; times in seconds on the run's clock."""
        view = self.job.request.view
        return {
            "request": view.request_id,
            "arrival_s": view.arrival_s,
            "prompt_tokens": view.prompt_tokens,
            "output_tokens": len(self.job.tokens),
            "max_tokens": self.job.request.params.max_tokens,
            "prefix_ids": list(view.prefix_ids) or None,
            "prefix_block_tokens": view.prefix_block_tokens or None,
            "tenant": view.tenant,
            "slo_class": view.slo_class,
            "session_id": view.session_id,
            "outcome": self.job.outcome,
            "finish": self.finish,
            "first_token_s": self.first_token_s,
            "last_token_s": self.last_token_s,
            "end_s": now_s,
            "failures": self.job.failures,
            "instances": [task.instance_id for task in self.job.tasks if task.instance_id is not None],
        }


class RowBuffer:
    """Rows of one turn of the event loop leave together."""

    def __init__(self, log: Callable[[LogRows], None], call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._log = log
        self._call_soon = call_soon
        self._rows: LogRows = {}

    def add(self, kind: str, row: Any) -> None:
        """One row of a list of ``reference_impl.events.ROW_FIELDS``."""
        if not self._rows:
            self._call_soon(self.flush)
        self._rows.setdefault(kind, []).append(row)

    def note(self, request_id: int, note: Note) -> None:
        """What a job has to say."""
        if note.kind == "dispatch":
            self.add("dispatch", (note.at_s, request_id, note.instance_id, note.reason))
        elif note.kind == "lost":
            self.add("change", (note.at_s, "lost", request_id, note.instance_id, None, note.tokens, note.reason))
        elif note.kind == "finish":
            self.add("finish", (note.at_s, request_id, note.instance_id, None, note.tokens))
        else:
            self.add("reject", (note.at_s, request_id, note.reason))

    def flush(self) -> None:
        """Hand over what has gathered."""
        rows, self._rows = self._rows, {}
        if rows:
            self._log(rows)
