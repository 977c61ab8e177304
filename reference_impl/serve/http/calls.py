"""A checked body to a call: token ids, sampling parameters and what the answer is to carry."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reference_impl.engine.api import SamplingParams
from reference_impl.serve.http.auth import Caller
from reference_impl.serve.http.bodies import ChatBody, CompletionBody, GenerationBody
from reference_impl.serve.http.call_options import chat_logprobs, check_min_tokens, sampling_params
from reference_impl.serve.http.errors import ServingError, invalid
from reference_impl.serve.http.json_body import check_body, shown
from reference_impl.serve.http.neutral import without_neutral
from reference_impl.serve.http.settings import HttpSettings
from reference_impl.serve.http.tokenizer import Tokenizer

Endpoint = Literal["completions", "chat.completions"]
_INLINE_CHARACTERS = 4096
"""Longer texts are tokenised in a thread, so that streams under way do not wait for it (about 1 ms)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call: every prompt is generated n times."""

    endpoint: Endpoint
    model: str
    prompts: tuple[tuple[int, ...], ...]
    params: tuple[SamplingParams, ...]
    """One for each sequence, n for the first prompt first."""
    n: int
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    continuous_usage: bool
    logprobs: int | None
    return_token_ids: bool
    session_id: str | None

    @property
    def sequences(self) -> int:
        """Choices of the answer."""
        return len(self.params)

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts, each counted once."""
        return sum(map(len, self.prompts))


class CallReader:
    """Reads calls for one model."""

    def __init__(self, settings: HttpSettings, tokenizer: Tokenizer | None) -> None:
        self._settings = settings
        self._tokenizer = tokenizer

    async def read(self, endpoint: Endpoint, value: dict[str, Any], caller: Caller, session_id: str | None) -> Call:
        """The call in a JSON object. Raises ServingError: 400, or 404 for another model."""
        kind = ChatBody if endpoint == "chat.completions" else CompletionBody
        body = check_body(kind, without_neutral(value))
        self._check_options(body)
        limit = min(self._settings.prompt_limit, caller.max_prompt_tokens or self._settings.prompt_limit)
        if isinstance(body, ChatBody):
            prompts: tuple[tuple[int, ...], ...] = (await self._chat_prompt(body, limit),)
            logprobs = chat_logprobs(body)
        else:
            assert isinstance(body, CompletionBody), "one of two"
            prompts = await self._prompts(body, limit)
            logprobs = body.logprobs
        for prompt in prompts:
            self._check_prompt(prompt, limit)
        if logprobs is not None and logprobs > self._settings.max_logprobs:
            param = "logprobs" if endpoint == "completions" else "top_logprobs"
            raise invalid(f"{param} {logprobs} is not allowed: at most {self._settings.max_logprobs}", param)
        return self._call(endpoint, body, prompts, logprobs, session_id)

    def _call(
        self,
        endpoint: Endpoint,
        body: GenerationBody,
        prompts: tuple[tuple[int, ...], ...],
        logprobs: int | None,
        session_id: str | None,
    ) -> Call:
        n = body.n or 1
        seed = secrets.randbits(63) if body.seed is None else body.seed
        options = body.stream_options
        return Call(
            endpoint,
            body.model,
            prompts,
            tuple(
                sampling_params(body, len(prompt), self._settings.context_tokens, logprobs, seed, choice)
                for prompt in prompts
                for choice in range(n)
            ),
            n,
            body.stop,
            bool(body.stream),
            options is not None and bool(options.include_usage),
            options is not None and bool(options.continuous_usage_stats),
            logprobs,
            bool(body.return_token_ids),
            session_id or body.prompt_cache_key or body.user,
        )

    def _check_options(self, body: GenerationBody) -> None:
        """What does not depend on the prompt."""
        if body.model != self._settings.model:
            raise model_not_found(body.model, self._settings.model)
        if body.stream_options is not None and not body.stream:
            raise invalid("stream_options is only allowed with stream: true; leave it out", "stream_options")
        count = (body.n or 1) * (len(body.prompt) if isinstance(body, CompletionBody) else 1)
        if count > self._settings.max_choices:
            raise invalid(f"prompts times n is {count}; allowed are {self._settings.max_choices} in one call", "n")
        for token in body.stop_token_ids or ():
            self._check_token(token, "stop_token_ids")
        check_min_tokens(body)

    async def _chat_prompt(self, body: ChatBody, limit: int) -> tuple[int, ...]:
        if self._tokenizer is None or self._tokenizer.template is None:
            raise invalid(
                f"the model {body.model} has no chat template; use /v1/completions", "messages", "no_chat_template"
            )
        messages = [_turn(message.role, message.content, message.name) for message in body.messages]
        return await self._encode(self._tokenizer.template.render(messages), limit, special_tokens=False)

    async def _prompts(self, body: CompletionBody, limit: int) -> tuple[tuple[int, ...], ...]:
        if self._tokenizer is None and any(isinstance(prompt, str) for prompt in body.prompt):
            raise invalid(f"the model {body.model} has no tokenizer; send token ids", "prompt", "no_tokenizer")
        return tuple(
            [
                await self._encode(prompt, limit, special_tokens=True) if isinstance(prompt, str) else prompt
                for prompt in body.prompt
            ]
        )

    async def _encode(self, text: str, limit: int, *, special_tokens: bool) -> tuple[int, ...]:
        assert self._tokenizer is not None, "checked by the caller"
        if self._tokenizer.surely_over(text, limit):
            raise _too_long(f"over {limit}", limit)
        if len(text) <= _INLINE_CHARACTERS:
            return tuple(self._tokenizer.encode(text, special_tokens=special_tokens))
        return tuple(await asyncio.to_thread(self._tokenizer.encode, text, special_tokens=special_tokens))

    def _check_prompt(self, prompt: Sequence[int], limit: int) -> None:
        if not prompt:
            raise invalid("the prompt has no tokens; send at least one", "prompt")
        if len(prompt) > limit:
            raise _too_long(str(len(prompt)), limit)
        self._check_token(max(prompt), "prompt")

    def _check_token(self, token: int, param: str) -> None:
        if token >= self._settings.vocab_size:
            raise invalid(
                f"{param}: token id {shown(token)} is not allowed: ids are 0 to {self._settings.vocab_size - 1}", param
            )


def model_not_found(name: str, served: str) -> ServingError:
    """404 in OpenAI's words."""
    return ServingError(
        404,
        f"the model {shown(name)} does not exist; this server has {served!r}",
        type="invalid_request_error",
        param="model",
        code="model_not_found",
    )


def _too_long(tokens: str, limit: int) -> ServingError:
    message = f"the prompt has {tokens} tokens, allowed are {limit}; shorten it"
    return invalid(message, "prompt", "context_length_exceeded")


def _turn(role: str, content: str, name: str | None) -> dict[str, str]:
    """A message for templates, which know no developer."""
    turn = {"role": "system" if role == "developer" else role, "content": content}
    return turn | {"name": name} if name is not None else turn
