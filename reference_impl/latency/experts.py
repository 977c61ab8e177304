"""Mixtures of experts: which weights a batch reads."""

from __future__ import annotations

from dataclasses import dataclass

from reference_impl.latency.errors import ProfileError


@dataclass(frozen=True)
class Experts:
    """Feed-forward layers of which each token takes ``per_token`` of ``routed`` experts, and the shared ones."""

    routed: int
    per_token: int
    intermediate: int
    """Of one routed expert."""
    shared_intermediate: int = 0
    """Of the shared experts together."""
    dense_layers: int = 0
    """The first layers have a plain feed-forward network."""

    def __post_init__(self) -> None:
        if not 1 <= self.per_token <= self.routed:
            raise ProfileError(f"{self.per_token} experts per token of {self.routed}; it must be 1 to {self.routed}")

    def touched(self, tokens: float) -> float:
        """Expected number of distinct experts that ``tokens`` read, each choosing its experts alike and on its own:
        ``n (1 - (1 - k/n) ** tokens)``. Real routing is less even and reads fewer."""
        missed: float = (1.0 - self.per_token / self.routed) ** tokens
        return self.routed * (1.0 - missed)
