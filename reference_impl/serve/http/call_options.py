"""Rules of single parameters of a call: what some of them mean together, and their defaults."""

from __future__ import annotations

from hashlib import blake2b

from reference_impl.engine.api import SamplingParams
from reference_impl.serve.http.bodies import ChatBody, CompletionBody, GenerationBody
from reference_impl.serve.http.errors import invalid, unsupported

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's; a chat goes on to the end of the context."""
_LARGEST_SEED = 2**63 - 1


def sampling_params(
    body: GenerationBody, prompt_tokens: int, context_tokens: int, logprobs: int | None, seed: int, choice: int
) -> SamplingParams:
    """Of one sequence; ``seed``: the call's, ``choice``: its number among those of one prompt."""
    return SamplingParams(
        max_tokens=_max_tokens(body, prompt_tokens, context_tokens),
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,
        seed=_seed_of(seed, choice),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
    )


def check_min_tokens(body: GenerationBody) -> None:
    """Honoured where it holds anyway: nothing but max_tokens ends the sequence."""
    if not body.min_tokens:
        return
    if not body.ignore_eos or body.stop or body.stop_token_ids:
        raise unsupported("min_tokens", "it is allowed only with ignore_eos: true and without stop, stop_token_ids")
    asked = _asked_tokens(body)[0]
    if asked is None or asked < body.min_tokens:
        raise invalid(f"min_tokens {body.min_tokens} needs a max_tokens that is as large", "min_tokens")


def chat_logprobs(body: ChatBody) -> int | None:
    """How many of the likeliest tokens a chat asks for; None: no log probabilities."""
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise invalid("top_logprobs is only allowed with logprobs: true", "top_logprobs")
    return None


def _max_tokens(body: GenerationBody, prompt_tokens: int, context_tokens: int) -> int:
    room = context_tokens - prompt_tokens
    asked, param = _asked_tokens(body)
    if asked is None:
        return min(room, DEFAULT_COMPLETION_TOKENS) if isinstance(body, CompletionBody) else room
    if asked > room:
        raise invalid(
            f"{param} {asked} and the prompt's {prompt_tokens} tokens are over the model's context of {context_tokens};"
            f" at most {room} are left",
            param,
            "context_length_exceeded",
        )
    return asked


def _asked_tokens(body: GenerationBody) -> tuple[int | None, str]:
    """The limit on output tokens that a client gave, and by which name."""
    new = body.max_completion_tokens if isinstance(body, ChatBody) else None
    if new is None:
        return body.max_tokens, "max_tokens"
    if body.max_tokens not in (None, new):
        raise invalid(f"max_tokens {body.max_tokens} contradicts max_completion_tokens {new}; give one", "max_tokens")
    return new, "max_completion_tokens"


def _seed_of(seed: int, choice: int) -> int:
    """The first choice has the call's seed, so that n does not change it; the others' are drawn from it."""
    if choice:
        digest = blake2b(f"{seed}/{choice}".encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "little")
    return seed & _LARGEST_SEED
