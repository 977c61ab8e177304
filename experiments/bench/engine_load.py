"""The requests of the engine's benchmark: ShareGPT-like lengths, random tokens, all there from the start."""

from __future__ import annotations

import random
from typing import NamedTuple

from workloads.catalog import open_trace

_LONGEST_PROMPT, _LONGEST_OUTPUT = 512, 128
_FIRST_TOKEN = 3
"""Below are the special tokens of the bundled models."""


class BenchRequest(NamedTuple):
    """A prompt and how many tokens are wanted; never more, never fewer."""

    prompt: tuple[int, ...]
    output_tokens: int


def sharegpt_like(requests: int, vocab_tokens: int, seed: int = 1) -> list[BenchRequest]:
    """Lengths of the bundled workload, cut to 512 prompt and 128 output tokens."""
    trace = open_trace(f"bundled:sharegpt-like:requests={requests},seed={seed}")
    draw = random.Random(seed)
    return [
        BenchRequest(
            tuple(draw.randrange(_FIRST_TOKEN, vocab_tokens) for _ in range(min(prompt, _LONGEST_PROMPT))),
            min(output, _LONGEST_OUTPUT),
        )
        for prompt, output in zip(trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
    ]


def mixed(requests: int, vocab_tokens: int, seed: int = 2) -> list[BenchRequest]:
    """Short and long prompts, half of which start with one of three prefixes; outputs of 8 to 64 tokens."""
    draw = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(_FIRST_TOKEN, vocab_tokens) for _ in range(count))

    prefixes = [tokens(count) for count in (48, 96, 160)]
    made = []
    for number in range(requests):
        prefix = draw.choice(prefixes) if number % 2 else ()
        own = tokens(draw.choice((1, 5, 17, 40, 130, 300)))
        made.append(BenchRequest(prefix + own, draw.randint(8, 64)))
    return made


def described(requests: list[BenchRequest]) -> str:
    """For a figure's note."""
    prompts, outputs = (sum(numbers) / len(requests) for numbers in _lengths(requests))
    return f"{len(requests)} requests, mean prompt {prompts:.0f}, mean output {outputs:.0f} tokens"


def _lengths(requests: list[BenchRequest]) -> tuple[list[int], list[int]]:
    return [len(request.prompt) for request in requests], [request.output_tokens for request in requests]
