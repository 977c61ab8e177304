"""One request on an instance: its tokens so far, and when it ends."""

from __future__ import annotations

from collections.abc import Collection

from reference_impl.core.sequence import Sequence
from reference_impl.engine.api import EngineRequest, FinishReason


class Live:
    """A request that this instance serves. Its tokens are values; what has KV where is its sequence's matter."""

    __slots__ = ("over", "params", "parked", "pending", "prompt_tokens", "request_id", "sequence", "tokens")

    def __init__(self, request: EngineRequest, sequence: Sequence) -> None:
        self.request_id = request.view.request_id
        self.params = request.params
        self.sequence = sequence
        self.tokens = [*request.prompt, *request.generated]
        """The prompt, then everything generated, here or elsewhere."""
        self.prompt_tokens = len(request.prompt)
        self.pending = 0
        """Tokens that the iterations under way will yield for it."""
        self.parked = False
        """Prefilled, and its KV waits here for another instance to take it."""
        self.over = False
        """Finished, cancelled or failed: what an iteration under way still yields for it is surplus."""

    @property
    def generated(self) -> int:
        """Tokens generated so far whose values are known."""
        return len(self.tokens) - self.prompt_tokens

    def add(self, token: int, eos_token_ids: Collection[int]) -> FinishReason | None:
        """Take the next token; says whether, and why, it is the last."""
        self.tokens.append(token)
        params = self.params
        if token in params.stop_token_ids or (token in eos_token_ids and not params.ignore_eos):
            return "stop"
        return "length" if self.generated >= params.max_tokens else None
