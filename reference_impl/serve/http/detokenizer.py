"""Tokens to text as they come: never half a character, and the pieces add up to the text of the whole."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

_REPLACEMENT = "�"
_LONGEST_WAIT_TOKENS = 8
"""Byte tokens that one UTF-8 character takes (4) and some in front; what is no character by then never becomes one."""


class Detokenizer(Protocol):
    """Of one sequence; keeps what is not a whole character yet."""

    def step(self, token: int) -> str:
        """The text that this token completes."""
        ...

    def flush(self) -> str:
        """What is left at the end, cut characters shown as U+FFFD."""
        ...


class ByteDetokenizer:
    """For byte-level vocabularies: a token is a run of bytes, so a table and an incremental decoder are exact."""

    __slots__ = ("_decode", "_table")

    def __init__(self, table: Sequence[bytes]) -> None:
        """``table``: the bytes of each token id; special tokens have none. Ids beyond it are no text either."""
        self._table = table
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def step(self, token: int) -> str:
        """See Detokenizer."""
        return self._decode(self._table[token]) if token < len(self._table) else ""

    def flush(self) -> str:
        """See Detokenizer."""
        return self._decode(b"", True)


class WindowDetokenizer:
    """For any other vocabulary: decodes the last tokens with and without the new ones and gives the difference.

    A token's text may depend on what stands before it (a leading space), so a short window is kept in front.
    """

    __slots__ = ("_decode", "_shown", "_textless", "_window")

    def __init__(self, decode: Callable[[list[int]], str], textless: Collection[int]) -> None:
        """``textless``: special tokens, which are no text."""
        self._decode = decode
        self._textless = textless
        self._window: list[int] = []
        self._shown = 0
        """How many tokens of the window are given out."""

    def step(self, token: int) -> str:
        """See Detokenizer."""
        if token in self._textless:
            return ""
        self._window.append(token)
        text = self._new_text()
        waits = text.endswith(_REPLACEMENT) and len(self._window) - self._shown < _LONGEST_WAIT_TOKENS
        return "" if waits or not text else self._give(text)

    def flush(self) -> str:
        """See Detokenizer."""
        return self._give(self._new_text())

    def _new_text(self) -> str:
        before = self._decode(self._window[: self._shown])
        return self._decode(self._window)[len(before) :]

    def _give(self, text: str) -> str:
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        return text


class NoText:
    """For a model without a tokenizer: its tokens have no text."""

    def step(self, token: int) -> str:  # noqa: ARG002
        """See Detokenizer."""
        return ""

    def flush(self) -> str:
        """See Detokenizer."""
        return ""
