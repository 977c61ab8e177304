"""``/v1/jobs``: requests as jobs of tasks, and batch jobs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reference_impl.serve.http.auth import Caller
from reference_impl.serve.http.batches import Batches
from reference_impl.serve.http.bodies import JobBody
from reference_impl.serve.http.document import answers, takes
from reference_impl.serve.http.door import FrontDoor
from reference_impl.serve.http.errors import ServingError, invalid
from reference_impl.serve.http.jobs import Job
from reference_impl.serve.http.json_body import read_json
from reference_impl.serve.http.responses import DeletedJob, ErrorBody, JobAnswer, JobList
from reference_impl.serve.http.settings import HttpSettings

_FINE_TUNING = "fine-tuning jobs are not supported yet; job types are: batch"


def job_routes(door: FrontDoor, batches: Batches) -> APIRouter:
    """Jobs of this front door; with API keys each tenant sees its own."""
    router = APIRouter(prefix="/v1", tags=["jobs"])
    settings = door.settings

    def caller_of(request: Request) -> Caller:
        caller = door.keys.caller(request)
        _refuse_shared_port(request, settings)
        return caller

    def find(request: Request, job_id: str) -> Job:
        return door.jobs.find(job_id, caller_of(request).tenant, every_tenant=not door.keys.needed)

    @router.post("/jobs", responses=answers(JobAnswer, 400, 401, 408, 413, 415, 421, 429), openapi_extra=takes(JobBody))
    async def create(request: Request) -> Response:
        caller = caller_of(request)
        value = await read_json(request, settings.max_body_bytes, settings.request_timeout_s)
        _refuse_fine_tuning(value)
        return JSONResponse(batches.start(value, caller).outline())

    @router.get("/jobs", responses=answers(JobList, 400, 401, 421))
    async def list_jobs(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
        tenant = caller_of(request).tenant
        jobs = list(door.jobs.of(tenant, every_tenant=not door.keys.needed))
        data = [job.outline() for job in jobs[:limit]]
        return JSONResponse({"object": "list", "data": data, "has_more": len(jobs) > limit})

    @router.get("/jobs/{job_id}", responses=answers(JobAnswer, 401, 404, 421))
    async def get(request: Request, job_id: str) -> Response:
        job = find(request, job_id)
        results = {"results": job.results} if job.type == "batch" and job.state != "running" else {}
        door.jobs.fetch(job)
        return JSONResponse(job.outline() | results)

    @router.delete("/jobs/{job_id}", responses=_deleted())
    async def delete(request: Request, job_id: str) -> Response:
        """Cancels a job that runs; forgets one that has ended."""
        job = find(request, job_id)
        if job.state == "running":
            job.cancel()
            return JSONResponse(job.outline())
        door.jobs.remove(job.id)
        return JSONResponse({"id": job.id, "object": "job", "deleted": True})

    @router.api_route(
        "/fine_tuning/jobs", methods=["GET", "POST"], include_in_schema=False, responses={400: {"model": ErrorBody}}
    )
    async def fine_tuning(request: Request) -> Response:
        door.keys.caller(request)
        raise invalid(_FINE_TUNING, "type", "unsupported_job_type")

    return router


def _refuse_shared_port(request: Request, settings: HttpSettings) -> None:
    """Which of several front doors answers there is chance; it would not know the job of a minute ago."""
    if settings.own_port is not None and request.scope["server"][1] != settings.own_port:
        raise ServingError(
            421,
            f"{settings.front_doors} front doors share this port, and each has jobs of its own; use the port of one of"
            f" them for /v1/jobs, such as {settings.own_port}",
            code="one_of_several_front_doors",
        )


def _refuse_fine_tuning(value: dict[str, Any]) -> None:
    if value.get("type") in ("fine_tuning", "fine-tuning", "fine_tuning.job"):
        raise invalid(_FINE_TUNING, "type", "unsupported_job_type")


def _deleted() -> dict[int | str, dict[str, Any]]:
    described = answers(JobAnswer, 401, 404, 421)
    described[200] = {"model": JobAnswer | DeletedJob}
    return described
