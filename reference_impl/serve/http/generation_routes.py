"""``/v1/completions`` and ``/v1/chat/completions``."""

from __future__ import annotations

from time import monotonic

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from reference_impl.serve.http.auth import SESSION_HEADER, Caller, header
from reference_impl.serve.http.bodies import ChatBody, CompletionBody
from reference_impl.serve.http.calls import Endpoint
from reference_impl.serve.http.document import answers, takes
from reference_impl.serve.http.door import FrontDoor
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.event_stream import REQUEST_ID_HEADER, EventStream, events, watched
from reference_impl.serve.http.exchange import Exchange
from reference_impl.serve.http.json_body import read_json
from reference_impl.serve.http.responses import ChatCompletion, Completion

_ERRORS = (400, 401, 404, 408, 409, 413, 415, 429, 503, 504)


def generation_routes(door: FrontDoor) -> APIRouter:
    """The endpoints that make tokens."""
    router = APIRouter(prefix="/v1", tags=["generation"])

    @router.post(
        "/completions", responses=answers(Completion, *_ERRORS, stream=True), openapi_extra=takes(CompletionBody)
    )
    async def completions(request: Request) -> Response:
        return await _serve(door, "completions", request)

    @router.post(
        "/chat/completions", responses=answers(ChatCompletion, *_ERRORS, stream=True), openapi_extra=takes(ChatBody)
    )
    async def chat_completions(request: Request) -> Response:
        return await _serve(door, "chat.completions", request)

    return router


async def _serve(door: FrontDoor, endpoint: Endpoint, request: Request) -> Response:
    exchange = await _accept(door, endpoint, request)
    if exchange.call.stream:
        return await _stream(door, exchange, request)
    async with watched(exchange, request.receive):
        body = await door.complete(exchange)
    return JSONResponse(body, headers={REQUEST_ID_HEADER: str(exchange.request_id)})


async def _accept(door: FrontDoor, endpoint: Endpoint, request: Request) -> Exchange:
    arrival_s = monotonic()
    settings = door.settings
    caller: Caller | None = None
    try:
        caller = door.keys.caller(request)
        session_id = header(request, SESSION_HEADER)
        value = await read_json(request, settings.max_body_bytes, settings.request_timeout_s)
        call = await door.read(endpoint, value, caller, session_id)
        return door.begin(call, caller, arrival_s)
    except ServingError as error:
        door.refused(endpoint, caller, error)
        raise
    except ClientDisconnect:
        door.refused(endpoint, caller, ServingError(499, "the client left before it had sent all", code="client_left"))
        raise


async def _stream(door: FrontDoor, exchange: Exchange, request: Request) -> Response:
    """Waits for the first event, so that what fails before it has its own HTTP status."""
    parts = events(exchange, door.answer(exchange))
    try:
        async with watched(exchange, request.receive):
            first = await anext(parts)
    except ServingError as error:
        exchange.fail(error)
        raise
    except BaseException:
        exchange.close("cancelled", 499)
        raise
    return EventStream(exchange, first, parts)
