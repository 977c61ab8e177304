"""A request of the trace as a request of the API: which path, which body, which headers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from workloads.client.answer import Kind

PromptForm = Literal["tokens", "text", "chat"]
"""``tokens``: /v1/completions with token ids; ``text``: the same with text; ``chat``: /v1/chat/completions."""
Usage = Literal["continuous", "final", "none"]
"""How often the server is asked for its token counts: with every chunk (vLLM's extension), at the end, never."""


class Ask(NamedTuple):
    """One request, ready to be sent."""

    row: int
    at_s: float
    """When it is due, in seconds since the replay's start."""
    prompt_tokens: int
    output_tokens: int
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Form:
    """How requests are put to this server."""

    model: str
    prompts: PromptForm = "tokens"
    ignore_eos: bool = True
    usage: Usage = "continuous"
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of every body; they win over ours."""

    @property
    def kind(self) -> Kind:
        """Of the API and its chunks."""
        return "chat" if self.prompts == "chat" else "completions"

    @property
    def path(self) -> str:
        """Below the server's /v1."""
        return "/chat/completions" if self.prompts == "chat" else "/completions"

    def body(self, prompt: list[int] | str, output_tokens: int) -> bytes:
        """JSON of one streamed request, greedy and of exactly ``output_tokens`` where the server obeys."""
        content: dict[str, Any] = {"model": self.model, "max_tokens": output_tokens, "temperature": 0, "stream": True}
        if self.prompts == "chat":
            content["messages"] = [{"role": "user", "content": prompt}]
        else:
            content["prompt"] = prompt
        if self.ignore_eos:
            content["ignore_eos"] = True
        if self.usage != "none":
            content["stream_options"] = {"include_usage": True}
        if self.usage == "continuous":
            content["stream_options"]["continuous_usage_stats"] = True
        return json.dumps({**content, **self.extra}, separators=(",", ":")).encode()
