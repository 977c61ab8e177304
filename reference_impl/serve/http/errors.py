"""What a client is told when something goes wrong: one exception, one JSON shape (OpenAI's)."""

from __future__ import annotations

import math
from typing import Any

INVALID_REQUEST = "invalid_request_error"
_DEFAULT_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ServingError(Exception):
    """A request that is not, or no longer, served. ``status`` is the HTTP status while no byte of the answer is out;
    in the middle of a stream the same body is the last event."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002  (OpenAI's word)
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or _DEFAULT_TYPES.get(status, INVALID_REQUEST if status < 500 else "server_error")
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON answer."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to it."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def invalid(message: str, param: str | None = None, code: str | None = None) -> ServingError:
    """A request that can never be served as it stands: 400, naming the parameter."""
    return ServingError(400, message, param=param, code=code)


def unsupported(param: str, allowed: str) -> ServingError:
    """A parameter of the API that this deployment does not carry out: refused, since ignoring it would mislead."""
    return invalid(f"{param} is not supported; {allowed}", param, "unsupported_parameter")


def internal_error() -> ServingError:
    """Our own fault; what it was stands in the server's log only."""
    return ServingError(500, "internal error; the server's log has the details", code="internal_error")
