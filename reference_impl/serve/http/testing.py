"""A gateway without a deployment: scripted tokens, delays and failures. For tests of the app, ours and others'."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from policies.api import InstanceView
from reference_impl.engine.api import SampledToken
from reference_impl.serve.http.delta_stream import DeltaStream
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import GatewayStats, GenerateRequest, Health, TaskState, TaskView

_FIRST_LETTER = 68
"""Id of a byte token in the bundled vocabulary; what follows are letters."""


@dataclass(frozen=True)
class Script:
    """What becomes of one request."""

    tokens: Sequence[int]
    """In order; cut at the request's max_tokens. If it is shorter, its last token ends the sequence (``stop``)."""
    delay_s: float = 0.0
    """Before each token. 0: a turn of the event loop."""
    fails_after: int | None = None
    """Tokens before ``error``."""
    error: ServingError = field(default_factory=lambda: ServingError(503, "instance 0 failed", code="instance_failed"))
    refusal: ServingError | None = None
    """Raised at once."""
    hangs_after: int | None = None
    """Tokens before nothing more comes."""
    cached_tokens: int | None = None
    tokens_at_once: int = 1


def letters(request: GenerateRequest) -> Script:
    """As many tokens as were asked for, by the seed: the same request gets the same answer."""
    params = request.params
    return Script([_FIRST_LETTER + (params.seed + place) % 20 for place in range(params.max_tokens)])


class FakeGateway:
    """Gives every request what ``script`` says. ``streams`` and ``ended`` show what the front door did."""

    def __init__(self, script: Callable[[GenerateRequest], Script] = letters) -> None:
        self.script = script
        self.requests: list[GenerateRequest] = []
        self.streams: list[DeltaStream] = []
        self.ended: dict[int, str | None] = {}
        """Request id to why it was ended early; None: a stop string."""
        self.ready = True
        self._ids = itertools.count()
        self._feeders: set[asyncio.Task[None]] = set()

    def now_s(self) -> float:
        """See Gateway."""
        return monotonic()

    def generate(self, request: GenerateRequest) -> DeltaStream:
        """See Gateway."""
        script = self.script(request)
        if script.refusal is not None:
            raise script.refusal
        request_id = next(self._ids)
        stream = DeltaStream(request_id, lambda reason: self._closed(stream, feeder, reason))
        stream.tasks = [TaskView("serve", 0, "running", request.arrival_s)]
        stream.cached_tokens = script.cached_tokens
        self.requests.append(request)
        self.streams.append(stream)
        feeder = asyncio.create_task(self._feed(stream, request, script))
        self._feeders.add(feeder)
        feeder.add_done_callback(self._feeders.discard)
        return stream

    async def health(self) -> Health:
        """See Gateway."""
        return Health(self.ready, "fake", int(self.ready), 1)

    def stats(self) -> GatewayStats:
        """See Gateway."""
        running = sum(not stream.over for stream in self.streams)
        return GatewayStats((InstanceView(0, "colocated", "ready", self.now_s(), 0, running, 0, 0, 90, 100, 16),))

    @property
    def running(self) -> int:
        """Requests that still get tokens."""
        return len(self._feeders)

    async def _feed(self, stream: DeltaStream, request: GenerateRequest, script: Script) -> None:
        params = request.params
        tokens = script.tokens[: params.max_tokens]
        for start in range(0, len(tokens), script.tokens_at_once):
            await asyncio.sleep(script.delay_s)
            if script.fails_after is not None and start >= script.fails_after:
                self._end(stream, "failed")
                stream.fail(script.error)
                return
            if script.hangs_after is not None and start >= script.hangs_after:
                await asyncio.Event().wait()
            part = tokens[start : start + script.tokens_at_once]
            if start + len(part) < len(tokens):
                stream.put(_sampled(stream.request_id, part, params.logprobs))
            else:
                self._end(stream, "done")
                full = len(tokens) == params.max_tokens
                stream.put(_sampled(stream.request_id, part, params.logprobs), "length" if full else "stop")

    def _closed(self, stream: DeltaStream, feeder: asyncio.Task[None], reason: str | None) -> None:
        self.ended[stream.request_id] = reason
        self._end(stream, "done" if reason is None else "cancelled")
        feeder.cancel()

    def _end(self, stream: DeltaStream, state: TaskState) -> None:
        stream.tasks = [task._replace(state=state, ended_s=self.now_s()) for task in stream.tasks]


def _sampled(request_id: int, tokens: Sequence[int], logprobs: int | None) -> tuple[SampledToken, ...]:
    """The likeliest tokens are the token itself and those after it, one nat apart."""
    if logprobs is None:
        return tuple(SampledToken(request_id, token) for token in tokens)
    return tuple(
        SampledToken(request_id, token, -0.5, tuple((token + rank, -0.5 - rank) for rank in range(logprobs)))
        for token in tokens
    )
