"""Bytes of a request to a checked body, or to an error that names the parameter."""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json
from starlette.requests import Request

from reference_impl.serve.http.errors import ServingError, invalid

_SHOWN_CHARACTERS = 60
Body = TypeVar("Body", bound=BaseModel)


async def read_json(request: Request, max_bytes: int, timeout_s: float) -> dict[str, Any]:
    """The JSON object that a request carries. Raises ServingError: 400, 408, 413 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ServingError(
            415, f"content type {shown(kind)} is not supported; send JSON with Content-Type: application/json"
        )
    try:
        async with asyncio.timeout(timeout_s):
            return parse_json(await _read(request, max_bytes))
    except TimeoutError as error:
        raise ServingError(408, f"the body did not arrive within {timeout_s:g} s; send it again") from error


def parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises ServingError (400)."""
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise invalid(f"the body is no JSON in UTF-8: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise invalid(f"the body must be a JSON object, not {shown(value)}", code="invalid_json")
    return value


def check_body(kind: type[Body], value: dict[str, Any]) -> Body:
    """The body as ``kind``. Raises ServingError (400) that names the first wrong parameter."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_context=False)[0]) from error


async def _read(request: Request, max_bytes: int) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > max_bytes:
            raise ServingError(413, f"the body is over {max_bytes} bytes, which is all that is allowed; send less")
    return bytes(data)


def shown(value: Any) -> str:
    """A value as messages show it: short."""
    text = reprlib.repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _refusal(error: ErrorDetails) -> ServingError:
    param = _path(error["loc"]) or "body"
    if error["type"] == "extra_forbidden":
        return invalid(f"{param} is no parameter of this endpoint; leave it out", param, "unknown_parameter")
    if error["type"] == "missing":
        return invalid(f"{param} is missing; it must be given", param, "missing_required_parameter")
    reason = error["msg"].removeprefix("Value error, ")
    return invalid(f"{param} {shown(error['input'])} is not allowed: {reason[:1].lower()}{reason[1:]}", param)


def _path(parts: Sequence[int | str]) -> str:
    """``messages[0].content``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")
