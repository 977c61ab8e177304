"""The FastAPI app of a front door. Opens no socket: uvicorn or Ray Serve does."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from reference_impl.serve.http.batches import Batches
from reference_impl.serve.http.document import documented
from reference_impl.serve.http.door import FrontDoor
from reference_impl.serve.http.errors import ServingError, internal_error, invalid
from reference_impl.serve.http.gateway import Gateway
from reference_impl.serve.http.generation_routes import generation_routes
from reference_impl.serve.http.job_routes import job_routes
from reference_impl.serve.http.service_routes import service_routes
from reference_impl.serve.http.settings import HttpSettings
from reference_impl.serve.http.tokenizer import Tokenizer

logger = logging.getLogger("semiflow.http")


def create_app(settings: HttpSettings, tokenizer: Tokenizer | None, gateway: Gateway) -> FastAPI:
    """OpenAI's API over a gateway. ``tokenizer`` None: token ids only. Raises SettingsError for a wrong keys file."""
    door = FrontDoor(settings, tokenizer, gateway)
    batches = Batches(door)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        yield
        await batches.stop()

    app = FastAPI(title="semiflow", docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False)
    app.include_router(generation_routes(door))
    app.include_router(job_routes(door, batches))
    app.include_router(service_routes(door))
    app.add_exception_handler(ServingError, _serving_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(ClientDisconnect, _client_left)
    app.add_exception_handler(Exception, _own_fault)
    app.openapi = documented(app, settings.model, keys=door.keys.needed)  # type: ignore[method-assign]  # FastAPI's own way to do it
    return app


def _told(error: ServingError, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(error.body(), error.status, headers={**error.headers(), **(headers or {})})


async def _serving_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, ServingError), "registered for it"
    return _told(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    path = request.url.path[:100]
    headers = dict(error.headers or {})
    message = str(error.detail)
    if error.status_code == 404:
        message = f"no such path: {path}; GET /openapi.json lists them"
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request) or [headers.get("Allow", "")])
        message = f"{request.method[:20]} is not allowed for {path} (allowed: {headers['Allow']})"
    return _told(ServingError(error.status_code, message, type="invalid_request_error"), headers)


def _methods(request: Request) -> list[str]:
    """Every method of a path: the route that refused knows its own only."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    fitting = (methods for path, methods in paths.items() if compile_path(path)[0].match(request.url.path))
    return sorted({method.upper() for methods in fitting for method in methods})


async def _wrong_query(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, RequestValidationError), "registered for it"
    first = error.errors()[0]
    param = str(first["loc"][-1])
    return _told(invalid(f"{param}: {first['msg']}", param))


async def _client_left(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)


async def _own_fault(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _told(internal_error())
