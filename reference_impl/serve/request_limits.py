"""Which requests a deployment can hold at all."""

from __future__ import annotations

from collections.abc import Sequence

from reference_impl.core.spec import InstanceSpec


class RequestLimits:
    """Which requests some instance, or a pair of instances, can hold."""

    def __init__(self, instances: Sequence[InstanceSpec]) -> None:
        def most(*roles: str) -> int:
            return max((spec.max_request_tokens for spec in instances if spec.role in roles), default=0)

        self._whole = most("colocated", "semi_pd")
        self._prefill, self._decode = most("prefill"), most("decode")

    def refusal(self, prompt_tokens: int, max_tokens: int) -> str | None:
        """Why nobody can serve it; None: somebody can."""
        total = prompt_tokens + max_tokens
        if total <= self._whole or (prompt_tokens + 1 <= self._prefill and total <= self._decode):
            return None
        most = max(self._whole, min(self._prefill, self._decode))
        return (
            f"its {total} tokens (prompt {prompt_tokens}, output up to {max_tokens}) exceed the {most} that an instance"
            " holds; shorten the prompt or lower max_tokens"
        )
