"""How a trace is replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from workloads.client.ask import PromptForm, Usage
from workloads.client.asks import Labels
from workloads.client.prompts import Vocabulary

TooLong = Literal["refuse", "clip"]


@dataclass(frozen=True)
class ReplaySettings:
    """Of one replay against one server."""

    url: str
    """With or without ``/v1``."""
    model: str | None = None
    """None: the only one that the server has."""
    prompts: PromptForm = "tokens"
    vocabulary: Vocabulary | None = None
    """Token ids that prompts may hold; None: as the server says."""
    tokenizer: Path | None = None
    """The model's ``tokenizer.json``, for prompts of text."""
    prompt_seed: int = 0
    """Equal seeds give equal prompts, which a server that still runs may have in its cache."""
    too_long: TooLong = "refuse"
    """What happens to requests over the server's context: not sent and counted, or cut to fit."""
    ignore_eos: bool = True
    usage: Usage = "continuous"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    api_key: str | None = None
    timeout_s: float = 600.0
    max_concurrency: int | None = None
    closed_loop: bool = False
    """Turns of sessions wait for the answers before them (:mod:`workloads.closed_loop`)."""
    retries: int = 0
    trial: bool = True
    """One request before all others, so that a server that cannot serve them is told apart from one that is slow."""
    warmup_requests: int = 0
    cores: tuple[int, ...] | None = None
    """Cores that the client keeps to."""
    keep_texts: bool = False

    @property
    def base_url(self) -> str:
        """Up to and including ``/v1``."""
        url = self.url.rstrip("/")
        return url if url.endswith("/v1") else f"{url}/v1"
