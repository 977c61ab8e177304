"""Batch jobs: a list of calls that runs in the background, its results kept until they are fetched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Any
from uuid import uuid4

from reference_impl.serve.http.auth import Caller
from reference_impl.serve.http.bodies import BatchItem, JobBody
from reference_impl.serve.http.calls import Endpoint
from reference_impl.serve.http.door import FrontDoor
from reference_impl.serve.http.errors import ServingError, internal_error, invalid
from reference_impl.serve.http.jobs import Job, cancelled
from reference_impl.serve.http.json_body import check_body

SLO_CLASS = "batch"
"""Of a batch job's requests, where the caller's key names none."""
logger = logging.getLogger("semiflow.http")
_ENDPOINTS: dict[str, Endpoint] = {"/v1/completions": "completions", "/v1/chat/completions": "chat.completions"}


class Batches:
    """Runs the batch jobs of one front door; all of them share its places for batch requests, tenants taking turns."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door

    def start(self, value: dict[str, Any], caller: Caller) -> Job:
        """A job from the body of ``POST /v1/jobs``. Raises ServingError: 400, or 429 where the caller has too many."""
        body = check_body(JobBody, value)
        settings = self._door.settings
        if len(body.requests) > settings.max_batch_requests:
            most = settings.max_batch_requests
            raise invalid(f"requests has {len(body.requests)} entries; allowed are {most} in one job", "requests")
        every_tenant = not self._door.keys.needed
        if not self._door.jobs.has_room(caller.tenant, settings.max_batch_jobs, every_tenant=every_tenant):
            raise ServingError(
                429,
                f"{settings.max_batch_jobs} batch jobs run or wait to be fetched, more are not kept; fetch one first",
                code="rate_limit_exceeded",
                retry_after_s=settings.retry_after_s,
            )
        job = Job(f"batch-{uuid4().hex[:12]}", "batch", caller.tenant, fetched=False)
        job.results = [None] * len(body.requests)
        self._door.jobs.add(job)
        caller = replace(caller, slo_class=caller.slo_class or SLO_CLASS)
        job.runner = asyncio.create_task(self._run(job, body.requests, caller))
        return job

    async def stop(self) -> None:
        """Cancel what runs."""
        runners = [job.runner for job in self._door.jobs.running() if job.runner is not None]
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)

    async def _run(self, job: Job, items: Sequence[BatchItem], caller: Caller) -> None:
        settings = self._door.settings
        ready = asyncio.Semaphore(settings.batch_concurrency)  # the others need not be tokenised yet
        try:
            async with asyncio.TaskGroup() as group:
                for place, item in enumerate(items):
                    group.create_task(self._fill(job, place, item, caller, ready))
            self._door.jobs.end(job, "done")
        except asyncio.CancelledError:
            rest = _result(cancelled(job.id))
            job.results = [
                result or {"custom_id": item.custom_id} | rest for item, result in zip(items, job.results, strict=True)
            ]
            self._door.jobs.end(job, "cancelled")
        asyncio.get_running_loop().call_later(settings.batch_results_s, self._door.jobs.remove, job.id)

    async def _fill(self, job: Job, place: int, item: BatchItem, caller: Caller, ready: asyncio.Semaphore) -> None:
        async with ready:
            try:
                result = {"status_code": 200, "body": await self._answer(job, item, caller)}
            except ServingError as error:
                result = _result(error)
            except Exception:
                logger.exception("a request of %s failed", job.id)
                result = _result(internal_error())
            job.results[place] = {"custom_id": item.custom_id} | result

    async def _answer(self, job: Job, item: BatchItem, caller: Caller) -> dict[str, Any]:
        if item.body.get("stream"):
            raise invalid("stream is not allowed within a batch job; leave it out", "stream")
        call = await self._door.read(_ENDPOINTS[item.url], item.body, caller, None)
        async with self._door.admission.batch_place(caller, call.sequences):
            return await self._door.complete(self._door.begin(call, caller, monotonic(), job))


def _result(error: ServingError) -> dict[str, Any]:
    return {"status_code": error.status, "body": error.body()}
