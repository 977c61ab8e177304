"""Log probabilities of tokens in the two shapes that OpenAI's API has for them."""

from __future__ import annotations

from typing import Any

from reference_impl.engine.api import SampledToken
from reference_impl.serve.http.choice import Piece
from reference_impl.serve.http.tokenizer import Tokenizer

_LEAST = -9999.0
"""In place of minus infinity, which JSON does not have."""


def completion_logprobs(tokenizer: Tokenizer | None, piece: Piece) -> dict[str, Any]:
    """``logprobs`` of a text completion: four parallel lists."""
    return {
        "tokens": [_label(tokenizer, sampled.token) for sampled in piece.tokens],
        "token_logprobs": [_finite(sampled.logprob) for sampled in piece.tokens],
        "top_logprobs": [_top_by_label(tokenizer, sampled) for sampled in piece.tokens],
        "text_offset": list(piece.offsets),
    }


def chat_logprobs(tokenizer: Tokenizer | None, piece: Piece, top: int) -> dict[str, Any]:
    """``logprobs`` of a chat: one object a token."""
    return {"content": [_content(tokenizer, sampled, top) for sampled in piece.tokens], "refusal": None}


def _content(tokenizer: Tokenizer | None, sampled: SampledToken, top: int) -> dict[str, Any]:
    entry = _entry(tokenizer, sampled.token, sampled.logprob)
    return entry | {"top_logprobs": [_entry(tokenizer, token, logprob) for token, logprob in sampled.top[:top]]}


def _entry(tokenizer: Tokenizer | None, token: int, logprob: float | None) -> dict[str, Any]:
    data = tokenizer.token_bytes(token) if tokenizer is not None else b""
    return {
        "token": _label(tokenizer, token),
        "logprob": _finite(logprob),
        "bytes": list(data) if data else None,
    }


def _top_by_label(tokenizer: Tokenizer | None, sampled: SampledToken) -> dict[str, float]:
    """The likeliest tokens and, wherever it stands, the chosen one."""
    return {
        _label(tokenizer, token): _finite(logprob)
        for token, logprob in (*sampled.top, (sampled.token, sampled.logprob))
    }


def _label(tokenizer: Tokenizer | None, token: int) -> str:
    """A name for a token that no other has: its text where it is whole characters."""
    data = tokenizer.token_bytes(token) if tokenizer is not None else b""
    try:
        return data.decode("utf-8") if data else f"token_id:{token}"
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finite(logprob: float | None) -> float:
    return logprob if logprob is not None and logprob > _LEAST else _LEAST
