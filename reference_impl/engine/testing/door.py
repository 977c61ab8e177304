"""The least front door: requests to instances in turn, hand-overs followed, failures tried again, ends counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle

from reference_impl.engine.api import EngineRequest, FinishReason
from reference_impl.engine.step import Failure, Parcel, Step
from reference_impl.engine.task_executor import TaskExecutor


@dataclass
class Job:
    """What the door knows of a request."""

    request: EngineRequest
    tokens: list[int] = field(default_factory=list)
    ends: list[FinishReason | Failure] = field(default_factory=list)
    """More than one would be an error of the instances."""
    gone: bool = False
    """Whether its client left before it was done."""
    tries: int = 0
    source: TaskExecutor | None = None
    """Where it is prefilled, and where its KV waits then."""
    target: TaskExecutor | None = None
    """Where it is handed over to."""

    @property
    def so_far(self) -> EngineRequest:
        """The request with what was generated, as another instance gets it."""
        return replace(self.request, generated=tuple(self.tokens))


class FakeDoor:
    """Serves requests on started instances whose steps come here."""

    def __init__(
        self,
        prefills: Sequence[TaskExecutor],
        decodes: Sequence[TaskExecutor] = (),
        *,
        early: bool = True,
        tries: int = 8,
    ) -> None:
        """``early``: follow announced hand-overs too. ``tries``: before a request is given up."""
        self.jobs: dict[int, Job] = {}
        self._prefills = cycle(prefills)
        self._decodes = cycle(decodes)
        self._early = early
        self._tries = tries
        self._all_done = asyncio.Event()
        for executor in (*prefills, *decodes):
            executor.on_step = partial(self._take, executor)

    async def serve(self, requests: Iterable[EngineRequest], timeout_s: float = 30.0) -> dict[int, tuple[int, ...]]:
        """Submit all of them at once; their tokens once every one has ended."""
        for request in requests:
            self.submit(request)
        await self.finished(timeout_s)
        return {request_id: tuple(job.tokens) for request_id, job in self.jobs.items()}

    async def finished(self, timeout_s: float = 30.0) -> None:
        """Wait until every request has ended."""
        async with asyncio.timeout(timeout_s):
            while not all(job.ends for job in self.jobs.values()):
                self._all_done.clear()
                await self._all_done.wait()

    def submit(self, request: EngineRequest) -> None:
        """A new request."""
        job = self.jobs[request.view.request_id] = Job(request)
        self._dispatch(job)

    def cancel(self, request_id: int) -> None:
        """Its client is gone: it counts as ended."""
        job = self.jobs[request_id]
        for executor in (job.source, job.target):
            if executor is not None:
                executor.cancel(request_id, "the client left")
        job.gone = True
        self._end(job, "stop")

    def _dispatch(self, job: Job) -> None:
        job.source, job.target = next(self._prefills), None
        job.source.submit(job.so_far)

    def _end(self, job: Job, end: FinishReason | Failure) -> None:
        job.ends.append(end)
        self._all_done.set()

    def _take(self, executor: TaskExecutor, step: Step) -> None:
        for output in step.outputs:
            job = self.jobs[output.request_id]
            job.tokens += [sampled.token for sampled in output.tokens]
            if output.finish is not None:
                if job.target not in (None, executor):
                    job.target.cancel(output.request_id, None)
                self._end(job, output.finish)
        for parcel in step.parcels:
            self._forward(executor, parcel)
        for request_id in step.adopted:
            job = self.jobs[request_id]
            if job.target is executor:
                self._release(job)
        for request_id in step.dropped:
            self._dispatch(self.jobs[request_id])
        for failure in step.failed:
            self._failed(executor, failure)

    def _forward(self, executor: TaskExecutor, parcel: Parcel) -> None:
        job = self.jobs[parcel.request_id]
        if job.ends or job.source is not executor or (parcel.early and not self._early):
            return
        if job.target is None:
            job.target = next(self._decodes)
        job.target.adopt(job.so_far, parcel)

    def _release(self, job: Job) -> None:
        if job.source is not None:
            job.source.release(job.request.view.request_id)
            job.source = None

    def _failed(self, executor: TaskExecutor, failure: Failure) -> None:
        """Only whoever has the request now can fail it. Both sides of a hand-over are told to forget it: the one that
        failed may have been brought its final parcel meanwhile."""
        request_id, job = failure.request_id, self.jobs[failure.request_id]
        if job.ends or executor not in (job.source, job.target):
            return
        for side in (job.source, job.target):
            if side is not None:
                side.cancel(request_id, None)
        job.tries += 1
        if failure.retry and job.tries < self._tries:
            self._dispatch(job)
        else:
            self._end(job, failure)
