"""Parameters that clients send and this deployment does not carry out: let through where they ask for nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reference_impl.serve.http.errors import unsupported

_ABSENT: tuple[Any, ...] = (None, [], {}, "")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (),
    "allowed_token_ids": (),
    "audio": (),
    "bad_words": (),
    "chat_template": (),
    "chat_template_kwargs": (),
    "continue_final_message": (False,),
    "documents": (),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": (),
    "metadata": (),
    "min_p": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "priority": (0,),
    "prompt_logprobs": (),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "store": (False,),
    "structured_outputs": (),
    "suffix": (),
    "tool_choice": ("none", "auto"),
    "tools": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "verbosity": (),
    "web_search_options": (),
}
"""Values beside null and empty ones that change nothing."""


def without_neutral(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without them. Raises ServingError (400) for one that asks for something."""
    kept = {}
    for name, value in body.items():
        if name == "best_of":
            _check_best_of(value, body.get("n"))
        elif name not in _NEUTRAL:
            kept[name] = value
        elif not any(_same(value, neutral) for neutral in _ABSENT + _NEUTRAL[name]):
            raise unsupported(name, _advice(name))
    return kept


def _check_best_of(value: Any, n: Any) -> None:
    """Choosing the best of more than are returned is not carried out."""
    if value is not None and not any(_same(value, neutral) for neutral in (1, n)):
        raise unsupported("best_of", "leave it out or make it equal to n")


def _advice(name: str) -> str:
    allowed = " or ".join(json.dumps(value) for value in _NEUTRAL[name])
    return f"leave it out or send {allowed}" if allowed else "leave it out"


def _same(value: Any, neutral: Any) -> bool:
    """Equality as JSON has it: true is not 1."""
    return isinstance(value, bool) == isinstance(neutral, bool) and bool(value == neutral)
