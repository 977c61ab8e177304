"""What one streamed answer says: how many tokens came with each chunk, why it ended, what the server counted.

How many tokens a chunk holds, from the best source that it has: the usage so far (``continuous_usage_stats``), its
token ids, its log probabilities; else one for each chunk with text, which :func:`settled_counts` later brings in line
with the final usage.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

Kind = Literal["completions", "chat"]
_CHAT_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class AnswerError(ValueError):
    """An answer that cannot be taken: an error that the server sent in the stream, or no answer of this API."""

    def __init__(self, kind: Literal["stream_error", "malformed"], message: str) -> None:
        super().__init__(message)
        self.kind: Literal["stream_error", "malformed"] = kind


@dataclass
class Answer:
    """One answer (``n`` = 1) while it streams."""

    kind: Kind
    keep_text: bool = False
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    """As the server counted."""
    output_tokens: int | None = None
    """As the server counted, so far."""
    counted: bool = True
    """Whether every chunk said how many tokens it holds."""
    tokens: int = 0
    done: bool = False
    texts: list[str] = field(default_factory=list)

    def take(self, data: bytes) -> int:
        """Read the data of one event; returns how many tokens it brings. Raises AnswerError."""
        if data == b"[DONE]":
            self.done = True
            return 0
        try:
            return self._take(json.loads(data.decode()))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, AnswerError):
                raise
            raise AnswerError("malformed", f"an event that is no chunk of this API: {_shown(data)}") from error

    @property
    def ended(self) -> bool:
        """Whether the server said that this is all."""
        return self.done or self.finish_reason is not None

    def _take(self, chunk: Any) -> int:  # Any: JSON; what does not fit raises and becomes an AnswerError
        if "error" in chunk and chunk["error"] is not None:
            raise AnswerError("stream_error", error_message(chunk["error"]))
        choices = chunk.get("choices") or []
        choice = choices[0] if choices else None
        text, holds_token = self._read(choice) if choice is not None else ("", False)
        usage = chunk.get("usage")
        if usage is not None:
            self._read_usage(usage)
        said = self._said(choice, usage is not None)
        if said is None:
            said = int(holds_token)
            self.counted = self.counted and not holds_token
        if self.keep_text and text:
            self.texts.append(text)
        self.tokens += said
        return said

    def _said(self, choice: Any, has_usage: bool) -> int | None:
        """Tokens of this chunk as the server tells them; None: it does not.

        Usage that comes after chunks without a count is the final one; :func:`settled_counts` spreads it.
        """
        if has_usage and self.counted and self.output_tokens is not None:
            return max(0, self.output_tokens - self.tokens)
        return None if choice is None else _listed(choice)

    def _read(self, choice: Any) -> tuple[str, bool]:
        """The choice's text, and whether it counts as a token where nothing says how many it holds."""
        reason = choice.get("finish_reason")
        if reason is not None:
            self.finish_reason = _text(reason)
        if self.kind == "completions":
            text = _text(choice["text"])
            return text, bool(text) or reason is None  # a token may be a part of a character, which has no text yet
        delta = choice["delta"]
        text = "".join(_text(delta[name]) for name in _CHAT_TEXTS if delta.get(name) is not None)
        return text, bool(text or delta.get("tool_calls"))

    def _read_usage(self, usage: Any) -> None:
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        self.prompt_tokens = self.prompt_tokens if prompt is None else _count(prompt)
        self.output_tokens = self.output_tokens if output is None else _count(output)


def settled_counts(counts: Sequence[int], total: int) -> list[int]:
    """Tokens of each chunk. Where they do not add up to the ``total`` that the server reported, they were guessed:
    then the total is spread evenly over the chunks, the first of which holds one token at least."""
    if not counts or sum(counts) == total:
        return list(counts)
    until = [-(-place * total // len(counts)) for place in range(len(counts) + 1)]
    return [end - begin for begin, end in pairwise(until)]


def error_message(error: Any) -> str:  # Any: JSON of whatever shape
    """The message in an error object of OpenAI's shape, or of a looser one."""
    if isinstance(error, dict):
        error = error.get("message", error)
    return _shown(error if isinstance(error, str) else json.dumps(error))


def _listed(choice: Any) -> int | None:
    """Tokens that the choice lists, by id or by log probability."""
    listed = choice.get("token_ids")
    if listed is None:
        logprobs = choice.get("logprobs") or {}
        listed = logprobs.get("content") or logprobs.get("tokens")
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise TypeError(listed)
    return len(listed)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise TypeError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _shown(value: str | bytes) -> str:
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:197]}..."
