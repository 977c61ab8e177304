"""Which requests an instance cannot serve, whatever it does."""

from __future__ import annotations

from reference_impl.core.spec import InstanceSpec
from reference_impl.engine.api import EngineRequest


def refusal(request: EngineRequest, spec: InstanceSpec, vocab_tokens: int) -> str | None:
    """Why the request can never run on an instance like this; None: it can."""
    prompt, generated, params = request.prompt, request.generated, request.params
    if not prompt or len(prompt) != request.view.prompt_tokens:
        said = request.view.prompt_tokens
        return f"its prompt has {len(prompt)} tokens, its description says {said}; allowed: the same number, 1 or more"
    low, high = min(*prompt, *generated, 0), max(*prompt, *generated, 0)
    if low < 0 or high >= vocab_tokens:
        return f"it has token {low if low < 0 else high}; allowed: 0 to {vocab_tokens - 1}, the model's vocabulary"
    if params.max_tokens <= len(generated):
        return (
            f"max_tokens is {params.max_tokens} with {len(generated)} tokens generated before; allowed: more than that"
        )
    return too_large(len(prompt), len(generated), params.max_tokens, spec)


def too_large(prompt_tokens: int, generated: int, max_tokens: int, spec: InstanceSpec) -> str | None:
    """Why a request of this size never fits; a prefill instance has to hold it up to its next token only."""
    total = prompt_tokens + (generated + 1 if spec.role == "prefill" else max_tokens)
    if total <= spec.max_request_tokens:
        return None
    return (
        f"its {total} tokens (prompt {prompt_tokens}, output up to {total - prompt_tokens}) exceed the"
        f" {spec.max_request_tokens} that a {spec.role} instance holds; shorten the prompt or lower max_tokens"
    )
