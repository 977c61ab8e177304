"""One JSON line a call, on the logger ``semiflow.requests``. Times are in seconds; what is not known is absent."""

from __future__ import annotations

import json
import logging
from typing import Any

from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.exchange import Exchange, Outcome

logger = logging.getLogger("semiflow.requests")


def log_ended(exchange: Exchange, job_id: str) -> None:
    """A call that was accepted is over."""
    if not logger.isEnabledFor(logging.INFO):
        return
    call, caller = exchange.call, exchange.caller
    first = [choice.first_token_s for choice in exchange.choices if choice.first_token_s is not None]
    last = [choice.last_token_s for choice in exchange.choices if choice.last_token_s is not None]
    _write(
        {
            "request": exchange.request_id,
            "job": job_id,
            "endpoint": call.endpoint,
            "model": call.model,
            "tenant": caller.tenant,
            "slo_class": caller.slo_class,
            "session": call.session_id,
            "stream": call.stream,
            "sequences": call.sequences,
            "prompt_tokens": call.prompt_tokens,
            "cached_tokens": exchange.cached_tokens,
            "output_tokens": exchange.output_tokens,
            "ttft_s": round(min(first) - exchange.arrival_s, 6) if first else None,
            "e2e_s": round(max(last) - exchange.arrival_s, 6) if last else None,
            "outcome": exchange.outcome,
            "status": exchange.status,
            "reason": exchange.reason,
        }
    )


def log_refused(endpoint: str, tenant: str | None, error: ServingError, outcome: Outcome) -> None:
    """A call that was not accepted."""
    if logger.isEnabledFor(logging.INFO):
        refusal = {"endpoint": endpoint, "tenant": tenant, "outcome": outcome, "status": error.status}
        _write(refusal | {"param": error.param, "reason": error.message})


def _write(fields: dict[str, Any]) -> None:
    logger.info(json.dumps({name: value for name, value in fields.items() if value is not None}))
