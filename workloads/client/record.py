"""What became of one request, on the client's clock."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Literal

from workloads.client.answer import Answer, settled_counts

Outcome = Literal["finished", "rejected", "failed", "unfinished"]
"""``rejected``: never sent for it is too long, or answered with a status that is an error; ``failed``: anything else
that ended it early; ``unfinished``: the replay was stopped."""


@dataclass(slots=True)
class Record:
    """One request. Times in seconds since the replay's start; None: it never happened."""

    row: int
    """Row number in the trace."""
    scheduled_s: float
    prompt_tokens: int
    """Asked for; what the server counted is in ``answer``."""
    output_tokens: int
    """Asked for."""
    answer: Answer
    sent_s: float | None = None
    """When the client began to send: its head was written, or the opening of a connection for it began."""
    times_s: array[float] = field(default_factory=lambda: array("d"))
    """When each chunk with tokens came."""
    chunk_tokens: array[int] = field(default_factory=lambda: array("l"))
    ended_s: float | None = None
    """When the answer was over."""
    outcome: Outcome = "unfinished"
    error: str | None = None
    """A short word for its kind, fit for counting: ``timeout``, ``http_429``, ``closed`` ..."""
    message: str | None = None
    status: int | None = None
    attempts: int = 0

    @property
    def arrival_s(self) -> float:
        """When the server got it, as far as the client knows."""
        return self.scheduled_s if self.sent_s is None else self.sent_s

    @property
    def first_token_s(self) -> float | None:
        """When the first token came."""
        return self.times_s[0] if self.times_s else None

    @property
    def last_token_s(self) -> float | None:
        """When the last token came."""
        return self.times_s[-1] if self.times_s else None

    @property
    def served_prompt_tokens(self) -> int:
        """As the server counted, where it said so."""
        return self.answer.prompt_tokens or self.prompt_tokens

    @property
    def served_output_tokens(self) -> int:
        """As the server counted, where it said so; else as the chunks did."""
        return self.answer.output_tokens or self.answer.tokens

    def counts(self) -> list[int]:
        """Tokens of each chunk in ``times_s``."""
        chunks = self.chunk_tokens.tolist()
        return settled_counts(chunks, self.served_output_tokens) if self.outcome == "finished" else chunks

    def end(self, outcome: Outcome, error: str | None = None, message: str | None = None) -> None:
        """Note how it ended."""
        self.outcome, self.error, self.message = outcome, error, message
