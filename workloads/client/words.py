"""Prompts of text, for servers that take no token ids: each word stands for one token.

With the model's ``tokenizer.json`` the words are those that it encodes as one token each behind a space, so that
lengths and blocks come out exactly but for what a chat template adds. Without it they are short English words, most of
which are one token in most vocabularies: then lengths are approximate, and the server's own count says how far off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.client.errors import ReplayError
from workloads.client.prompts import MIN_VOCABULARY

_ENOUGH = 4096


@dataclass(frozen=True)
class Words:
    """What a text prompt is made of."""

    words: tuple[str, ...]
    overhead_tokens: int = 0
    """What the tokenizer puts before the first word, such as a token for the beginning."""

    def text(self, tokens: list[int]) -> str:
        """The text whose tokens are these, given by place in ``words``; its first ones are the overhead's."""
        chosen = tokens[self.overhead_tokens :] or tokens[-1:]
        return " " + " ".join([self.words[token] for token in chosen])


def common_words() -> Words:
    """Short English words."""
    path = Path(__file__).parents[1] / "data" / "words.txt"
    return Words(tuple(dict.fromkeys(path.read_text(encoding="utf-8").split())))


def words_of(tokenizer_json: Path) -> Words:
    """The words that this tokenizer encodes as one token each. Raises ReplayError."""
    tokenizer = _load(tokenizer_json)
    found = sorted({word for token in tokenizer.get_vocab() if (word := _word(tokenizer, token)) is not None})[:_ENOUGH]
    if len(found) < MIN_VOCABULARY:
        raise ReplayError(
            f"{tokenizer_json}: only {len(found)} words are one token each; allowed: {MIN_VOCABULARY} or more; leave "
            "--tokenizer out, then lengths are approximate"
        )
    return Words(tuple(found), len(tokenizer.encode(f" {found[0]}").ids) - 1)


def _word(tokenizer: Any, token: str) -> str | None:  # Any: tokenizers ships no types that mypy takes
    """The word that the token is, if it stays one behind another word."""
    identity = tokenizer.token_to_id(token)
    word: str = tokenizer.decode([identity]).strip()
    if not (word.isascii() and word.isalpha()):
        return None
    twice = tokenizer.encode(f" {word} {word}", add_special_tokens=False).ids
    return word if twice == [identity, identity] else None


def _load(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ReplayError(f"{path}: reading it needs the package tokenizers; get it with the extra `serve`") from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise ReplayError(f"{path}: no tokenizer.json that can be read ({' '.join(str(error).split())})") from error
