"""The requests' JSON: what may stand in it. Strict: unknown parameters and lax types are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

MAX_STOPS = 4
MAX_STOP_CHARACTERS = 256
_MAX_NAME = 512
_MAX_KEYS = 100
_INT64 = 2**63
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
_TEXT_SCHEMA = {"type": "string", "minLength": 1}
_TOKENS_SCHEMA = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_PROMPT_SCHEMA = {
    "title": "Prompt",
    "anyOf": [
        _TEXT_SCHEMA,
        {"type": "array", "minItems": 1, "items": _TEXT_SCHEMA},
        _TOKENS_SCHEMA,
        {"type": "array", "minItems": 1, "items": _TOKENS_SCHEMA},
    ],
}
_STOP_SCHEMA_ONE = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}
_STOP_SCHEMA = {
    "title": "Stop",
    "anyOf": [_STOP_SCHEMA_ONE, {"type": "array", "maxItems": MAX_STOPS, "items": _STOP_SCHEMA_ONE}, {"type": "null"}],
}
_PART_SCHEMA = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
    "additionalProperties": False,
}
_CONTENT_SCHEMA = {
    "title": "Content",
    "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": _PART_SCHEMA}],
}


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def _prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """Every prompt of a call, texts as they are, token ids as tuples."""
    if isinstance(value, str) or _is_tokens(value):
        value = [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) and item for item in value):
            return tuple(value)
        if all(_is_tokens(item) for item in value):
            return tuple(map(tuple, value))
    raise ValueError("must be a text, a list of texts, a list of token ids or a list of such lists; none may be empty")


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return ()
    fits = isinstance(stops, list) and len(stops) <= MAX_STOPS
    if not fits or not all(isinstance(stop, str) and 0 < len(stop) <= MAX_STOP_CHARACTERS for stop in stops):
        raise ValueError(
            f"must be a text or a list of at most {MAX_STOPS} texts, each of 1 to {MAX_STOP_CHARACTERS} characters"
        )
    return tuple(stops)


def _content(value: Any) -> str:
    """The text of a message; parts are joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(_is_text_part(part) for part in value):
        return "".join(part["text"] for part in value)
    raise ValueError('must be a text or a list of parts {"type": "text", "text": ...}; other parts are not supported')


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() == {"type", "text"}
        and part["type"] == "text"
        and isinstance(part["text"], str)
    )


def _said(value: Any) -> Any:
    """A message as clients send it back has empty fields, such as ``"tool_calls": null``: they say nothing."""
    if not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if name in ("role", "content") or item not in (None, [])}


class StrictBody(BaseModel):
    """Unknown keys fail; "8" is not 8."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, value: Any) -> Any:
        """So that a million unknown keys are not refused one by one."""
        if isinstance(value, dict) and len(value) > _MAX_KEYS:
            raise ValueError(f"has {len(value)} keys, more than the {_MAX_KEYS} that any object may have")
        return value


class StreamOptions(StrictBody):
    """What a stream carries beside text."""

    include_usage: bool | None = None
    """One last chunk without choices and with the usage."""
    continuous_usage_stats: bool | None = None
    """The usage so far in every chunk."""
    include_obfuscation: Literal[False] | None = None


class GenerationBody(StrictBody):
    """What both endpoints take. ``top_k``, ``stop_token_ids``, ``ignore_eos``, ``min_tokens`` and ``return_token_ids``
    are extensions of OpenAI's API, named as in vLLM."""

    model: Annotated[str, Field(max_length=_MAX_NAME)]
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    """-1 and 0: all tokens."""
    seed: Annotated[int, Field(ge=-_INT64, lt=_INT64)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Annotated[tuple[str, ...], PlainValidator(_stops), WithJsonSchema(_STOP_SCHEMA)] = ()
    stop_token_ids: Annotated[list[TokenId], Field(fail_fast=True, max_length=64)] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=_MAX_NAME)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=_MAX_NAME)] | None = None
    """Like ``user``: calls with an equal one belong together (a session)."""
    safety_identifier: Annotated[str, Field(max_length=_MAX_NAME)] | None = None
    """Accepted for compatibility; it asks for nothing."""
    return_token_ids: bool | None = None
    """Token ids beside the text."""


class CompletionBody(GenerationBody):
    """``POST /v1/completions``."""

    prompt: Annotated[tuple[str | tuple[int, ...], ...], PlainValidator(_prompts), WithJsonSchema(_PROMPT_SCHEMA)]
    logprobs: Annotated[int, Field(ge=0)] | None = None


class Message(StrictBody):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, PlainValidator(_content), WithJsonSchema(_CONTENT_SCHEMA)]
    name: Annotated[str, Field(max_length=_MAX_NAME)] | None = None


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Annotated[Message, BeforeValidator(_said)]], Field(fail_fast=True, min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None


class BatchItem(StrictBody):
    """One request of a batch job."""

    custom_id: Annotated[str, Field(max_length=_MAX_NAME)] | None = None
    url: Literal["/v1/completions", "/v1/chat/completions"] = "/v1/completions"
    body: dict[str, Any]
    """As that endpoint takes it, without streaming."""


class JobBody(StrictBody):
    """``POST /v1/jobs``."""

    type: Literal["batch"]
    requests: Annotated[list[BatchItem], Field(fail_fast=True, min_length=1)]
