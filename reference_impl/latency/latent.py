"""Multi-head latent attention: what it caches and computes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LatentAttention:
    """Keys and values of all heads come from one latent vector per token, the only thing that is cached (MLA,
    DeepSeek-V2, arXiv 2405.04434, section 2.1).

    A prefill expands the latents to keys and values; a decode absorbs the expansion into its queries and outputs and
    attends to the latents themselves (section 2.1.2, as vLLM and SGLang do). Both multiply by the same weights.
    """

    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    query_rank: int | None = None
    """None: queries are not compressed."""

    @property
    def cached_values(self) -> int:
        """Per token and layer; all heads share it, so each device of a tensor-parallel group holds it whole."""
        return self.kv_rank + self.rope_dim

    def products(self, hidden: int, heads: int) -> tuple[tuple[int, int], ...]:
        """(inner, columns) of the weight matrices of one layer, of so many heads."""
        query_dim = heads * (self.nope_dim + self.rope_dim)
        rank = self.query_rank
        query = ((hidden, query_dim),) if rank is None else ((hidden, rank), (rank, query_dim))
        expansion = (self.kv_rank, heads * (self.nope_dim + self.value_dim))
        return (*query, (hidden, self.cached_values), expansion, (heads * self.value_dim, hidden))

    def flops_per_pair(self, heads: int) -> int:
        """One query token against one context token whose keys and values are expanded."""
        return 2 * heads * (self.nope_dim + self.rope_dim + self.value_dim)

    def decode_flops_per_pair(self, heads: int) -> int:
        """The same against the latent itself."""
        return 2 * heads * (2 * self.kv_rank + self.rope_dim)

    def expansion_flops(self, heads: int) -> int:
        """Keys and values of one cached token, which a later chunk of its prompt needs again."""
        return 2 * self.kv_rank * heads * (self.nope_dim + self.value_dim)

    def expanded_values(self, heads: int) -> int:
        """Values per token and layer that prefill attention reads."""
        return heads * (self.nope_dim + self.rope_dim + self.value_dim)
