"""Whether the server is there, knows the model and answers as it will have to: asked before the replay starts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from workloads.client.answer import Answer
from workloads.client.ask import Ask, Form
from workloads.client.clock import Clock
from workloads.client.errors import ReplayError
from workloads.client.exchange import error_in, exchange
from workloads.client.prompts import Vocabulary
from workloads.client.record import Record
from workloads.client.wire import DroppedError, UnreachableError, Wire

_LISTING_S = 30.0
_REMEDIES = {
    "http_401": "give the environment variable that holds the key with --api-key-env",
    "http_403": "give the environment variable that holds the key with --api-key-env",
    "http_404": "check --url and --model",
    "http_400": "servers that do not know ignore_eos or stream_options want --no-ignore-eos or --usage none",
    "http_422": "servers that do not know ignore_eos or stream_options want --no-ignore-eos or --usage none",
    "timeout": "is it busy or stopped? --timeout says how long to wait",
    "empty": "is it a completion server? --prompts chat asks in the form of chats",
    "malformed": "is it an OpenAI-compatible server? --prompts text or chat asks in another form",
}


@dataclass(frozen=True)
class ServedModel:
    """What ``/v1/models`` says of the model; None: it does not say."""

    name: str
    max_model_tokens: int | None = None
    """Prompt and output together."""
    vocabulary: Vocabulary | None = None


async def find_model(wire: Wire, url: str, wanted: str | None) -> ServedModel:
    """The model to ask for: ``wanted``, or the one that the server has. Raises ReplayError."""
    try:
        async with asyncio.timeout(_LISTING_S), wire.get("/models") as reply:
            status, body = reply.status, await reply.text()
    except UnreachableError as error:
        raise ReplayError(f"{url}: no connection ({error}); is the server up, and is this its address?") from error
    except (DroppedError, TimeoutError) as error:
        reason = str(error) or f"no answer within {_LISTING_S:g} s"
        raise ReplayError(f"{url}: /v1/models got no answer ({reason}); is it an OpenAI-compatible server?") from error
    if status in (401, 403):
        raise ReplayError(f"{url}: {status}: {error_in(body)}; {_REMEDIES[f'http_{status}']}")
    models = _models(body) if status == 200 else {}
    if wanted is None:
        return _only(models, url, status)
    if models and wanted not in models:
        raise ReplayError(f"{url}: no model {wanted!r}; allowed: {', '.join(sorted(models))} (--model)")
    return models.get(wanted, ServedModel(wanted))


async def try_out(wire: Wire, url: str, form: Form, prompt: list[int] | str, clock: Clock, timeout_s: float) -> Record:
    """Ask for one token in the replay's own form. Raises ReplayError unless it comes."""
    answer = Answer(form.kind)
    record = Record(0, clock.now_s(), 1, 1, answer)
    ask = Ask(0, record.scheduled_s, 1, 1, form.body(prompt, 1), {})
    try:
        async with asyncio.timeout(timeout_s):
            await exchange(wire, form.path, ask, record, clock.now_s)
    except TimeoutError:
        record.end("failed", "timeout", f"no whole answer within {timeout_s:g} s")
    if record.outcome != "finished":
        said = f"{record.status}: {record.message}" if record.outcome == "rejected" else record.message
        remedy = _REMEDIES.get(record.error or "")
        raise ReplayError(
            f"{url}: a trial request to /v1{form.path} failed: {said}" + (f"; {remedy}" if remedy else "")
        )
    return record


def _only(models: Mapping[str, ServedModel], url: str, status: int) -> ServedModel:
    if len(models) == 1:
        return next(iter(models.values()))
    if models:
        raise ReplayError(f"{url}: serves several models, name one with --model: {', '.join(sorted(models))}")
    raise ReplayError(f"{url}: /v1/models lists no model (status {status}); name it with --model")


def _models(body: str) -> dict[str, ServedModel]:
    """Model by name; empty where the body is no list of models."""
    try:
        entries = json.loads(body)["data"]
        return {entry["id"]: _served(entry) for entry in entries if isinstance(entry["id"], str)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _served(entry: Mapping[str, Any]) -> ServedModel:
    limit, size, special = entry.get("max_model_len"), entry.get("vocab_size"), entry.get("special_token_ids", [])
    known = isinstance(special, list) and all(type(token) is int for token in special)
    vocabulary = Vocabulary(0, size, frozenset(special)) if _is_count(size) and known else None
    return ServedModel(entry["id"], limit if _is_count(limit) else None, vocabulary)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 1 <= value < 2**31
