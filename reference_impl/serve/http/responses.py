"""What the endpoints answer, as models for the OpenAPI document. Answers are written without them, for speed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Finish = Literal["stop", "length"]


class ErrorDetail(BaseModel):
    """OpenAI's error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every refusal and every failure."""

    error: ErrorDetail


class CachedTokens(BaseModel):
    """Part of ``usage``."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of a call; each prompt counts once whatever n is."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens | None


class _Choice(BaseModel):
    index: int
    finish_reason: Finish
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class CompletionLogprobs(BaseModel):
    """Four parallel lists."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(_Choice):
    """One continuation."""

    text: str
    logprobs: CompletionLogprobs | None


class TokenLogprob(BaseModel):
    """One token and its log probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenLogprob(TokenLogprob):
    """With the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """One entry a token."""

    content: list[ChosenLogprob]
    refusal: None


class AssistantMessage(BaseModel):
    """What the model said."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Choice):
    """One answer."""

    message: AssistantMessage
    logprobs: ChatLogprobs | None


class _Answer(BaseModel):
    id: str
    created: int
    model: str
    usage: Usage


class Completion(_Answer):
    """``/v1/completions``."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class ChatCompletion(_Answer):
    """``/v1/chat/completions``."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class ModelCard(BaseModel):
    """One model. From ``max_model_len`` on: what a load generator needs to make prompts of token ids."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    vocab_size: int
    special_token_ids: list[int]


class ModelList(BaseModel):
    """``/v1/models``."""

    object: Literal["list"]
    data: list[ModelCard]


class TaskBody(BaseModel):
    """One task of a job; times by the run's clock."""

    kind: Literal["serve", "prefill", "decode"]
    instance: int | None
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    started_s: float
    ended_s: float | None


class RequestCounts(BaseModel):
    """Of a batch job."""

    total: int
    completed: int
    failed: int


class BatchResult(BaseModel):
    """Of one request of a batch job."""

    custom_id: str | None
    status_code: int
    body: dict[str, Any]


class JobAnswer(BaseModel):
    """One job."""

    id: str
    object: Literal["job"]
    type: Literal["completions", "chat.completions", "batch"]
    status: Literal["running", "done", "failed", "cancelled"]
    created_at: int
    ended_at: int | None
    tenant: str | None
    tasks: list[TaskBody]
    request_counts: RequestCounts | None = None
    results: list[BatchResult] | None = None


class JobList(BaseModel):
    """``/v1/jobs``, newest first."""

    object: Literal["list"]
    data: list[JobAnswer]
    has_more: bool


class DeletedJob(BaseModel):
    """A job that had ended is forgotten."""

    id: str
    object: Literal["job"]
    deleted: Literal[True]


class HealthBody(BaseModel):
    """``/health``."""

    status: Literal["ok", "unavailable"]
    detail: str
    instances_ready: int
    instances: int
