"""The OpenAPI document: what FastAPI cannot see, since bodies are read and answers written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from reference_impl.serve.http.bodies import ChatBody, CompletionBody, JobBody
from reference_impl.serve.http.responses import ErrorBody

_BODIES: tuple[type[BaseModel], ...] = (CompletionBody, ChatBody, JobBody)
_REFERENCE = "#/components/schemas/{model}"
_EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "description": "A chunk or an error as JSON, at the end [DONE]"}},
    "required": ["data"],
}
_REASONS = {
    400: "The request cannot be served as it stands",
    401: "No API key, or an unknown one",
    404: "No such model or job",
    408: "The body did not arrive in time",
    409: "The job was cancelled",
    413: "The body is too long",
    415: "The body is not JSON",
    421: "Several front doors share this address, and each has jobs of its own",
    429: "Too many requests in flight",
    503: "The deployment cannot serve it now",
    504: "The time limit has passed",
}


def takes(body: type[BaseModel]) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads this body."""
    schema = {"$ref": _REFERENCE.format(model=body.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def answers(model: type[BaseModel], *errors: int, stream: bool = False) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route."""
    ok: dict[str, Any] = {"model": model}
    if stream:
        ok["content"] = {"text/event-stream": {"schema": _EVENT}}
        ok["description"] = "The whole answer, or with stream: true its parts as server-sent events"
    described: dict[int | str, dict[str, Any]] = {200: ok}
    for status in errors:
        described[status] = {"model": ErrorBody, "description": _REASONS[status]}
    return described


def documented(app: FastAPI, model: str, *, keys: bool) -> Callable[[], dict[str, Any]]:
    """What ``app.openapi`` is to be: the document, made once. ``keys``: requests must bring an API key."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, model, keys=keys)
        return app.openapi_schema

    return document


def _document(app: FastAPI, model: str, *, keys: bool) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, schemas = models_json_schema([(body, "validation") for body in _BODIES], ref_template=_REFERENCE)
    parts = document.setdefault("components", {})
    for name, schema in schemas["$defs"].items():
        if "model" in schema["properties"]:
            schema["properties"]["model"] = {"type": "string", "enum": [model]}
        parts.setdefault("schemas", {})[name] = schema
    if keys:
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path == "/health" else [{"key": []}]
    return document
