"""One request and its streamed answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from workloads.client.answer import Answer, AnswerError, error_message
from workloads.client.ask import Ask
from workloads.client.record import Record
from workloads.client.sse import EventLengthError, SseParser
from workloads.client.wire import DroppedError, Mark, Reply, UnreachableError, Wire

_LINGER_S = 1.0
"""How long the end of a body is awaited after ``[DONE]``: without it the connection cannot be used again."""


async def exchange(wire: Wire, path: str, ask: Ask, record: Record, now_s: Callable[[], float]) -> None:
    """Send ``ask`` and fill ``record``; whatever the server does ends up there, never in an exception."""
    mark = Mark()
    record.attempts += 1
    try:
        async with wire.post(path, ask.body, ask.headers, mark) as reply:
            record.status = reply.status
            if reply.status != 200:
                record.end("rejected", f"http_{reply.status}", error_in(await reply.text()))
            elif reply.content_type != "text/event-stream":
                said = error_in(await reply.text())
                record.end("failed", "malformed", f"answered with {reply.content_type}, not an event stream: {said}")
            else:
                await _read(reply, record, now_s)
    except UnreachableError as error:
        record.end("failed", "connect", str(error))
    except DroppedError as error:
        record.end("failed", "closed", str(error))
    except AnswerError as error:
        record.end("failed", error.kind, str(error))
    except EventLengthError as error:
        record.end("failed", "malformed", str(error))
    finally:
        if record.sent_s is None:
            record.sent_s = mark.sent_s
        if record.ended_s is None:
            record.ended_s = now_s()


async def _read(reply: Reply, record: Record, now_s: Callable[[], float]) -> None:
    parser, answer = SseParser(), record.answer
    pieces = reply.pieces()
    async for piece in pieces:
        came_s = now_s()
        for event in parser.feed(piece):
            _take(event, came_s, record)
        if answer.done:
            record.ended_s = came_s
            await _linger(reply)
            break
    for event in parser.finish():
        _take(event, now_s(), record)
    _judge(answer, record)


def _take(event: bytes, came_s: float, record: Record) -> None:
    tokens = record.answer.take(event)
    if tokens:
        record.times_s.append(came_s)
        record.chunk_tokens.append(tokens)


async def _linger(reply: Reply) -> None:
    try:
        async with asyncio.timeout(_LINGER_S):
            async for _ in reply.pieces():
                pass
    except (TimeoutError, DroppedError):
        return


def _judge(answer: Answer, record: Record) -> None:
    if not answer.ended:
        record.end("failed", "closed", "the stream ended without a finish_reason or [DONE]")
    elif not record.times_s:
        record.end("failed", "empty", "the answer had no tokens")
    else:
        record.end("finished")


def error_in(body: str) -> str:
    """The message in the body of an answer with an error status."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return error_message(body)
    if isinstance(content, dict):
        content = content.get("error", content.get("detail", content))
    return error_message(content)
