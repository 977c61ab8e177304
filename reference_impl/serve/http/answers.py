"""Pieces of choices as OpenAI's JSON: whole answers, and events of a stream with what never changes written once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

from reference_impl.serve.http.calls import Call
from reference_impl.serve.http.choice import Choice, Piece
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.exchange import Usage
from reference_impl.serve.http.logprobs import chat_logprobs, completion_logprobs
from reference_impl.serve.http.tokenizer import Tokenizer

DONE = "data: [DONE]\n\n"


class Answer:
    """What both endpoints share; subclasses say what a choice looks like."""

    prefix = ""
    whole_object = ""
    chunk_object = ""

    def __init__(self, call: Call, request_id: int, created_s: int, tokenizer: Tokenizer | None) -> None:
        self.id = f"{self.prefix}-{request_id}"
        self._call = call
        self._created_s = created_s
        self._tokenizer = tokenizer
        head = json.dumps(self._outline(self.chunk_object) | {"choices": []}, separators=(",", ":"))
        self._head = f"data: {head[: -len(']}')]}"
        self._no_usage = ',"usage":null' if call.include_usage else ""

    def event(self, choice: Choice, piece: Piece, usage: Usage | None) -> str:
        """One event for one piece; ``usage``: of the call so far, where it was asked for."""
        finish = "null" if piece.finish is None else f'"{piece.finish}"'
        tail = self._no_usage if usage is None else f',"usage":{_usage_json(usage)}'
        return (
            f'{self._head}{{"index":{choice.index},{self._text(choice, piece)},"logprobs":{self._logprobs_json(piece)},'
            f'"finish_reason":{finish}{self._token_ids_json(choice, piece)}}}]{tail}}}\n\n'
        )

    def usage_event(self, usage: Usage) -> str:
        """The event after the last piece."""
        return f'{self._head}],"usage":{_usage_json(usage)}}}\n\n'

    def body(self, choices: Sequence[tuple[Choice, Piece]], usage: Usage) -> dict[str, Any]:
        """The whole answer."""
        return self._outline(self.whole_object) | {
            "choices": [self._whole(choice, piece) for choice, piece in choices],
            "usage": json.loads(_usage_json(usage)),
        }

    def _outline(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self._created_s, "model": self._call.model}

    def _whole(self, choice: Choice, piece: Piece) -> dict[str, Any]:
        outline = {"index": choice.index} | self._message(piece)
        outline |= {"logprobs": self._logprobs(piece), "finish_reason": piece.finish}
        if self._call.return_token_ids:
            outline |= {"token_ids": [t.token for t in piece.tokens], "prompt_token_ids": list(choice.prompt)}
        return outline

    def _token_ids_json(self, choice: Choice, piece: Piece) -> str:
        if not self._call.return_token_ids:
            return ""
        prompt = f',"prompt_token_ids":{_compact(choice.prompt)}' if choice.pieces == 1 else ""
        return f',"token_ids":{_compact([sampled.token for sampled in piece.tokens])}{prompt}'

    def _logprobs_json(self, piece: Piece) -> str:
        return "null" if self._call.logprobs is None else _compact(self._logprobs(piece))

    def _text(self, choice: Choice, piece: Piece) -> str:
        raise NotImplementedError

    def _message(self, piece: Piece) -> dict[str, Any]:
        raise NotImplementedError

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        raise NotImplementedError


class CompletionAnswer(Answer):
    """``/v1/completions``."""

    prefix = "cmpl"
    whole_object = chunk_object = "text_completion"

    def _text(self, choice: Choice, piece: Piece) -> str:  # noqa: ARG002
        return f'"text":{encode_basestring_ascii(piece.text)}'

    def _message(self, piece: Piece) -> dict[str, Any]:
        return {"text": piece.text}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        return None if self._call.logprobs is None else completion_logprobs(self._tokenizer, piece)


class ChatAnswer(Answer):
    """``/v1/chat/completions``."""

    prefix = "chatcmpl"
    whole_object, chunk_object = "chat.completion", "chat.completion.chunk"

    def _text(self, choice: Choice, piece: Piece) -> str:
        role = '"role":"assistant",' if choice.pieces == 1 else ""
        return f'"delta":{{{role}"content":{encode_basestring_ascii(piece.text)}}}'

    def _message(self, piece: Piece) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": piece.text, "refusal": None}}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        top = self._call.logprobs
        return None if top is None else chat_logprobs(self._tokenizer, piece, top)


def error_event(error: ServingError) -> str:
    """The last event of a stream that failed."""
    return f"data: {_compact(error.body())}\n\n"


def _usage_json(usage: Usage) -> str:
    """Written by hand: load generators ask for it in every chunk."""
    prompt, output, cached = usage
    details = "null" if cached is None else f'{{"cached_tokens":{cached}}}'
    return (
        f'{{"prompt_tokens":{prompt},"completion_tokens":{output},"total_tokens":{prompt + output},'
        f'"prompt_tokens_details":{details}}}'
    )


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
