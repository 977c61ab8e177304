"""One call while it runs: its streams, its time limit, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic
from typing import Literal, NamedTuple

from reference_impl.serve.http.auth import Caller
from reference_impl.serve.http.calls import Call
from reference_impl.serve.http.choice import Choice, Piece
from reference_impl.serve.http.detokenizer import NoText
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import Gateway, GenerateRequest, GenerateStream, TaskView
from reference_impl.serve.http.merge import merged
from reference_impl.serve.http.tokenizer import Tokenizer

Outcome = Literal["ok", "failed", "refused", "timeout", "cancelled", "client_left"]


class Usage(NamedTuple):
    """Tokens of a call; each prompt counts once whatever n is."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None


class Exchange:
    """Created when the streams are accepted; whoever runs it calls :meth:`close` exactly where the answer ends."""

    def __init__(self, call: Call, caller: Caller, arrival_s: float) -> None:
        self.call = call
        self.caller = caller
        self.arrival_s = arrival_s
        """By this process's monotonic clock."""
        self.choices: list[Choice] = []
        self.stop_reason: ServingError | None = None
        """Why it was cut short from outside of its streams."""
        self.outcome: Outcome | None = None
        self.status = 200
        self.reason: str | None = None
        """Of a call that failed."""
        self.on_close: Callable[[Exchange], None] | None = None
        self.on_cut: Callable[[], None] | None = None
        self._prompt_tokens = call.prompt_tokens
        self._timer: asyncio.TimerHandle | None = None

    def start(self, gateway: Gateway, tokenizer: Tokenizer | None, run_arrival_s: float, timeout_s: float) -> None:
        """Send every sequence off. Raises ServingError, and then none is under way."""
        prompts = [prompt for prompt in self.call.prompts for _ in range(self.call.n)]
        try:
            for index, (prompt, params) in enumerate(zip(prompts, self.call.params, strict=True)):
                caller = self.caller
                request = GenerateRequest(
                    prompt, params, run_arrival_s, caller.tenant, caller.slo_class, self.call.session_id
                )
                stream = gateway.generate(request)
                detokenizer = tokenizer.detokenizer() if tokenizer is not None else NoText()
                self.choices.append(Choice(index, prompt, stream, detokenizer, self.call.stops))
        except BaseException:
            self.cut(ServingError(503, "another sequence of this call was refused"))
            raise
        late = ServingError(504, f"not finished within {timeout_s:g} s, the time limit of a request", code="timeout")
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self.cut, late)

    @property
    def request_id(self) -> int:
        """Of its first sequence."""
        return self.choices[0].stream.request_id

    @property
    def tasks(self) -> list[TaskView]:
        """Of all its sequences."""
        return [task for choice in self.choices for task in choice.stream.tasks]

    @property
    def output_tokens(self) -> int:
        """Generated so far, over all choices."""
        return sum(choice.tokens for choice in self.choices)

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens found in prefix caches, each prompt counted once; None where it is not known."""
        known = [choice.stream.cached_tokens for choice in self.choices[:: self.call.n]]
        return sum(count for count in known if count is not None) if None not in known else None

    def usage(self) -> Usage:
        """As of now."""
        return Usage(self._prompt_tokens, self.output_tokens, self.cached_tokens)

    async def pieces(self) -> AsyncIterator[tuple[Choice, Piece]]:
        """Everything that comes, in order. Raises ServingError where it cannot be completed."""
        streams: Sequence[GenerateStream] = [choice.stream for choice in self.choices]
        if len(streams) == 1:
            choice = self.choices[0]
            async for delta in streams[0]:
                yield choice, choice.read(delta, monotonic())
        else:
            async for place, delta in merged(streams):
                choice = self.choices[place]
                if choice.finish is None:  # else: underway when a stop string ended it
                    yield choice, choice.read(delta, monotonic())
        if any(choice.finish is None for choice in self.choices):
            raise self.stop_reason or ServingError(
                503, "the deployment ended a sequence without a reason; try again", code="incomplete"
            )

    async def gather(self) -> list[tuple[Choice, Piece]]:
        """Each choice with all of its pieces in one. Raises like :meth:`pieces`."""
        parts: list[list[Piece]] = [[] for _ in self.choices]
        async for choice, piece in self.pieces():
            parts[choice.index].append(piece)
        return [(choice, _joined(own)) for choice, own in zip(self.choices, parts, strict=True)]

    def cut(self, reason: ServingError) -> None:
        """End it early: its streams stop, and whoever reads them gets ``reason``."""
        if self.outcome is None and self.stop_reason is None:
            self.stop_reason = reason
            for choice in self.choices:
                choice.stream.cancel(reason.code or reason.message)
            if self.on_cut is not None:
                self.on_cut()

    def fail(self, error: ServingError) -> None:
        """Close it with what its client is told."""
        if self.outcome is None:
            self.reason = error.message
        self.close(outcome_of(error), error.status)

    def close(self, outcome: Outcome, status: int) -> None:
        """Note what became of it; streams that still run are cancelled. Only the first call counts."""
        if self.outcome is not None:
            return
        self.outcome, self.status = outcome, status
        if self._timer is not None:
            self._timer.cancel()
        for choice in self.choices:
            choice.stream.cancel(outcome)
        if self.on_close is not None:
            self.on_close(self)


def outcome_of(error: ServingError) -> Outcome:
    """What a call ended with."""
    named: dict[str | None, Outcome] = {"timeout": "timeout", "cancelled": "cancelled", "client_left": "client_left"}
    return named.get(error.code, "refused" if error.status < 500 else "failed")


def _joined(pieces: Sequence[Piece]) -> Piece:
    return Piece(
        "".join(piece.text for piece in pieces),
        [token for piece in pieces for token in piece.tokens],
        [offset for piece in pieces for offset in piece.offsets],
        pieces[-1].finish if pieces else None,
    )
