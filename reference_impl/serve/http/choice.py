"""One sequence of an answer as it grows: tokens in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reference_impl.engine.api import FinishReason, SampledToken
from reference_impl.serve.http.detokenizer import Detokenizer
from reference_impl.serve.http.gateway import Delta, GenerateStream
from reference_impl.serve.http.stop_strings import StopStrings


class Piece(NamedTuple):
    """What one delta adds to a choice."""

    text: str
    tokens: Sequence[SampledToken]
    offsets: Sequence[int]
    """Where each token's text begins in the choice's, in characters (that of a stop string counted)."""
    finish: FinishReason | None


class Choice:
    """Reads one stream. Every token counts, also those whose text is held back or dropped."""

    __slots__ = (
        *("_detokenizer", "_stops", "characters", "finish", "first_token_s", "index", "last_token_s"),
        *("pieces", "prompt", "stream", "tokens"),
    )

    def __init__(
        self,
        index: int,
        prompt: tuple[int, ...],
        stream: GenerateStream,
        detokenizer: Detokenizer,
        stops: Sequence[str],
    ) -> None:
        self.index = index
        self.prompt = prompt
        self.stream = stream
        self.pieces = 0
        """Given out so far."""
        self.tokens = 0
        """Generated so far."""
        self.characters = 0
        self.finish: FinishReason | None = None
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self._detokenizer = detokenizer
        self._stops = StopStrings(stops)

    def read(self, delta: Delta, now_s: float) -> Piece:
        """The next piece. A stop string ends the stream, and what follows it in the delta is not taken."""
        if delta.tokens:
            self.first_token_s = now_s if self.first_token_s is None else self.first_token_s
            self.last_token_s = now_s
        text, offsets = "", []
        textless = len(delta.tokens) - 1 if delta.finish == "stop" else None
        for place, sampled in enumerate(delta.tokens):
            offsets.append(self.characters)
            if place != textless:
                text += self._text(self._detokenizer.step(sampled.token))
            if self._stops.found is not None:
                self.finish = "stop"
                self.stream.end()
                break
        else:
            if delta.finish is not None:
                text += self._rest()
                self.finish = delta.finish if self._stops.found is None else "stop"
        self.tokens += len(offsets)
        self.pieces += 1
        return Piece(text, delta.tokens[: len(offsets)], offsets, self.finish)

    def _text(self, text: str) -> str:
        self.characters += len(text)
        return self._stops.step(text)

    def _rest(self) -> str:
        text = self._text(self._detokenizer.flush())
        return text + self._stops.flush()
