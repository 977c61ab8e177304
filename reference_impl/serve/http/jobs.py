"""Requests as jobs of tasks: what runs, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import time
from typing import Any, Literal

from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.exchange import Exchange, Outcome
from reference_impl.serve.http.gateway import TaskView

JobType = Literal["completions", "chat.completions", "batch"]
JobState = Literal["running", "done", "failed", "cancelled"]
STATE_OF: dict[Outcome, JobState] = {
    "ok": "done",
    "failed": "failed",
    "refused": "failed",
    "timeout": "failed",
    "cancelled": "cancelled",
    "client_left": "cancelled",
}


@dataclass(eq=False)
class Job:
    """One call, or one batch of them. Its tasks are parts on instances."""

    id: str
    type: JobType
    tenant: str | None
    created_s: float = field(default_factory=time)
    """Unix time, like all times that clients see."""
    state: JobState = "running"
    ended_s: float | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    """Calls under way."""
    ended_tasks: list[TaskView] = field(default_factory=list)
    runner: asyncio.Task[None] | None = None
    """Of a batch job."""
    results: list[dict[str, Any] | None] = field(default_factory=list)
    """Of a batch job, by place; None: not there yet."""
    fetched: bool = True
    """False: a batch job whose results nobody has read."""

    @property
    def tasks(self) -> list[TaskView]:
        """As of now."""
        return self.ended_tasks + [task for exchange in self.exchanges for task in exchange.tasks]

    def ended(self, exchange: Exchange) -> None:
        """A call is over: keep what is still asked for, let go of its streams."""
        self.ended_tasks += exchange.tasks
        self.exchanges.remove(exchange)

    def cancel(self) -> None:
        """Its client gets an error; of no effect once it has ended."""
        if self.runner is not None:
            self.runner.cancel()
        for exchange in tuple(self.exchanges):
            exchange.cut(cancelled(self.id))

    def outline(self) -> dict[str, Any]:
        """As JSON, without results."""
        outline: dict[str, Any] = {
            "id": self.id,
            "object": "job",
            "type": self.type,
            "status": self.state,
            "created_at": int(self.created_s),
            "ended_at": None if self.ended_s is None else int(self.ended_s),
            "tenant": self.tenant,
            "tasks": [_task(task) for task in self.tasks],
        }
        return outline | ({"request_counts": self._counts()} if self.type == "batch" else {})

    def _counts(self) -> dict[str, int]:
        codes = [result["status_code"] for result in self.results if result is not None]
        done = sum(code == 200 for code in codes)
        return {"total": len(self.results), "completed": done, "failed": len(codes) - done}


class Jobs:
    """The jobs of one front door. Ended ones are forgotten, oldest first, when there are too many."""

    def __init__(self, max_kept: int) -> None:
        self._max_kept = max_kept
        self._jobs: dict[str, Job] = {}
        self._forgettable: dict[str, None] = {}

    def add(self, job: Job) -> None:
        """A job that begins now."""
        self._jobs[job.id] = job

    def end(self, job: Job, state: JobState) -> None:
        """A job is over."""
        job.state = state
        job.ended_s = time()
        if job.fetched:
            self._let_go(job)

    def fetch(self, job: Job) -> None:
        """Its results were read."""
        if not job.fetched and job.state != "running":
            job.fetched = True
            self._let_go(job)

    def find(self, job_id: str, tenant: str | None, *, every_tenant: bool) -> Job:
        """One job that this caller may see. Raises ServingError (404)."""
        job = self._jobs.get(job_id)
        if job is None or not (every_tenant or job.tenant == tenant):
            raise ServingError(
                404, f"no job {job_id[:80]!r} here; GET /v1/jobs lists those of this front door", code="job_not_found"
            )
        return job

    def of(self, tenant: str | None, *, every_tenant: bool) -> Iterator[Job]:
        """The jobs that this caller may see, newest first."""
        return (job for job in reversed(self._jobs.values()) if every_tenant or job.tenant == tenant)

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended, if it is still here."""
        self._jobs.pop(job_id, None)
        self._forgettable.pop(job_id, None)

    def has_room(self, tenant: str | None, most: int, *, every_tenant: bool) -> bool:
        """Whether one more batch job of this caller's can be kept. Those that were fetched are forgotten for it, oldest
        first."""
        kept = [job for job in self.of(tenant, every_tenant=every_tenant) if job.type == "batch"]
        for job in reversed(kept):
            if len(kept) < most:
                break
            if job.fetched:
                kept.remove(job)
                self.remove(job.id)
        return len(kept) < most

    def running(self) -> Iterator[Job]:
        """Jobs that have not ended."""
        return (job for job in self._jobs.values() if job.state == "running")

    def _let_go(self, job: Job) -> None:
        self._forgettable[job.id] = None
        while len(self._forgettable) > self._max_kept:
            self.remove(next(iter(self._forgettable)))


def cancelled(job_id: str) -> ServingError:
    """What the client of a cancelled job is told."""
    return ServingError(409, f"{job_id} was cancelled", type="cancelled_error", code="cancelled")


def _task(task: TaskView) -> dict[str, Any]:
    return {
        "kind": task.kind,
        "instance": task.instance_id,
        "status": task.state,
        "started_s": task.started_s,
        "ended_s": task.ended_s,
    }
