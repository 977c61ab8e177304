"""The engine's seams: what a request asks for, what one forward computes, what it yields. Imports no torch.

Times are ``time.monotonic()`` less the run's epoch: on one host every process reads the same clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from policies.api import RequestView

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next tokens of one request are chosen, and when it ends."""

    max_tokens: int
    temperature: float = 1.0
    """0: greedy."""
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    """The draw for the token at position p depends on (seed, p) only: a request that is moved or recomputed goes on
    with the same tokens."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    """None: none; n: of the chosen token and of the n likeliest."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One request as an instance gets it."""

    view: RequestView
    prompt: tuple[int, ...]
    params: SamplingParams
    generated: tuple[int, ...] = ()
    """Tokens that it was given before it came here (after a failure or a hand-over); they are never yielded again."""
    decode_instance_id: int | None = None
    """Who decodes it, where that was chosen at dispatch."""


class ChunkRow(NamedTuple):
    """The next part of one prompt."""

    request_id: int
    tokens: Sequence[int]
    start: int
    """Position of the first of them, counted from 0."""
    blocks: Sequence[int]
    """The sequence's row of the block table, up to the last of these tokens at least."""
    yields: bool
    """Whether it ends the prompt: then it yields a token."""


class DecodeRow(NamedTuple):
    """One decode."""

    request_id: int
    token: int | None
    """The input token; None: what the iteration before yields for this request (planned one ahead)."""
    position: int
    """Of the input token, counted from 0; its KV is written there."""
    blocks: Sequence[int]


class ForwardBatch(NamedTuple):
    """One iteration as an executor gets it."""

    ordinal: int
    chunks: tuple[ChunkRow, ...]
    decodes: tuple[DecodeRow, ...]


class SampledToken(NamedTuple):
    """One token of an outcome."""

    request_id: int
    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens and their log probabilities, where they were asked for."""


class Outcome(NamedTuple):
    """What an iteration yielded, and when it ran."""

    ordinal: int
    start_s: float
    end_s: float
    tokens: tuple[SampledToken, ...]
    """Chunks that end their prompt first, then the decodes, in the batch's order."""


class EngineError(RuntimeError):
    """The engine cannot do what was asked: names the value, what is allowed and the remedy."""


class WorkerDiedError(EngineError):
    """An executor's process is gone; its KV with it."""


class Executor(Protocol):
    """Runs one lane's iterations in order; at most two may be under way."""

    def admit(self, request_id: int, params: SamplingParams) -> None:
        """Make the sampling parameters of a request known before its first row."""
        ...

    def forget(self, request_ids: Sequence[int]) -> None: ...
    def launch(self, batch: ForwardBatch) -> None: ...
    def collect(self) -> Outcome:
        """Wait for the oldest iteration under way. Raises WorkerDiedError."""
        ...

    def fileno(self) -> int | None:
        """A descriptor that is readable while :meth:`collect` would not wait; None: it never waits long."""
        ...

    def close(self) -> None: ...
