"""``/v1/models``, ``/health`` and ``/metrics``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reference_impl.serve.http.calls import model_not_found
from reference_impl.serve.http.document import answers
from reference_impl.serve.http.door import FrontDoor
from reference_impl.serve.http.responses import HealthBody, ModelCard, ModelList


def service_routes(door: FrontDoor) -> APIRouter:
    """What says how this server is. Only ``/health`` never needs an API key."""
    router = APIRouter(tags=["service"])

    @router.get("/v1/models", responses=answers(ModelList, 401))
    async def models(request: Request) -> Response:
        door.keys.caller(request)
        return JSONResponse({"object": "list", "data": [_card(door)]})

    @router.get("/v1/models/{model:path}", responses=answers(ModelCard, 401, 404))
    async def model(request: Request, model: str) -> Response:
        door.keys.caller(request)
        if model != door.settings.model:
            raise model_not_found(model, door.settings.model)
        return JSONResponse(_card(door))

    @router.get("/health", responses=answers(HealthBody) | {503: {"model": HealthBody}})
    async def health() -> Response:
        found = await door.gateway.health()
        body = {
            "status": "ok" if found.ready else "unavailable",
            "detail": found.detail,
            "instances_ready": found.instances_ready,
            "instances": found.instances,
        }
        return JSONResponse(body, 200 if found.ready else 503)

    @router.get("/metrics", response_class=Response, responses=_page())
    async def metrics(request: Request) -> Response:
        door.keys.caller(request)
        return Response(door.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    return router


def _card(door: FrontDoor) -> dict[str, Any]:
    settings = door.settings
    return {
        "id": settings.model,
        "object": "model",
        "created": door.created_s,
        "owned_by": "semiflow",
        "max_model_len": settings.context_tokens,
        "vocab_size": settings.vocab_size,
        "special_token_ids": door.special_token_ids,
    }


def _page() -> dict[int | str, dict[str, Any]]:
    described = answers(HealthBody, 401)
    described[200] = {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' format"}
    return described
