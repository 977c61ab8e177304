"""Decoder-only transformers as data, and what follows from their shape."""

from __future__ import annotations

from dataclasses import dataclass

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.experts import Experts
from reference_impl.latency.latent import LatentAttention


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only transformer, dense unless it has ``experts``. All figures are of the whole model unless a method
    takes ``tp``."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    """Of a query and its key."""
    intermediate: int
    """Of a plain feed-forward network."""
    vocab: int
    max_context_tokens: int
    tied_embeddings: bool = False
    gated_mlp: bool = True
    bytes_per_value: int = 2
    """Of a weight, and of a key or value: 2 for bf16 and fp16."""
    source: str = "Hugging Face config.json"
    latent: LatentAttention | None = None
    experts: Experts | None = None
    fp8_weights: bool = False
    """The weights of the layers take one byte; embeddings, activations and KV stay as they are."""

    def __post_init__(self) -> None:
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ProfileError(
                f"model {self.name!r}: {self.heads} heads and {self.kv_heads} KV heads; these must divide those"
            )
        if self.experts is not None and self.experts.dense_layers >= self.layers:
            raise ProfileError(f"model {self.name!r}: all of its {self.layers} layers are dense; it has no experts")

    # --------------------------------------------------------------------------------------------------- parameters

    @property
    def query_dim(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of the keys (and of the values) of one token in one layer."""
        return self.kv_heads * self.head_dim

    @property
    def expert_layers(self) -> int:
        """Layers with experts; the others are dense."""
        return 0 if self.experts is None else self.layers - self.experts.dense_layers

    @property
    def attention_parameters(self) -> int:
        """Weights of one layer's attention."""
        if self.latent is not None:
            return sum(inner * columns for inner, columns in self.latent.products(self.hidden, self.heads))
        return self.hidden * (2 * self.query_dim + 2 * self.kv_dim)

    def mlp_parameters(self, intermediate: int) -> int:
        """Weights of a feed-forward network of that width."""
        return (3 if self.gated_mlp else 2) * self.hidden * intermediate

    def layers_parameters(self, experts_per_layer: int) -> int:
        """Weights of all layers' matrices, with so many routed experts counted in each layer that has some."""
        plain = self.layers * self.attention_parameters
        plain += (self.layers - self.expert_layers) * self.mlp_parameters(self.intermediate)
        if self.experts is None:
            return plain
        router = self.hidden * self.experts.routed
        shared = self.mlp_parameters(self.experts.shared_intermediate)
        routed = experts_per_layer * self.mlp_parameters(self.experts.intermediate)
        return plain + self.expert_layers * (router + shared + routed)

    @property
    def embedding_parameters(self) -> int:
        """Input embeddings and output head."""
        return self.vocab * self.hidden * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        """Matrices and embeddings; norms, biases and positions (under 0.1 %) left out."""
        return self.layers_parameters(self.experts.routed if self.experts else 0) + self.embedding_parameters

    @property
    def active_parameters(self) -> int:
        """Those that one token meets."""
        return self.layers_parameters(self.experts.per_token if self.experts else 0) + self.embedding_parameters

    # -------------------------------------------------------------------------------------------------------- memory

    @property
    def weight_value_bytes(self) -> int:
        """Of a weight of the layers."""
        return 1 if self.fp8_weights else self.bytes_per_value

    @property
    def weight_bytes(self) -> int:
        embeddings = self.embedding_parameters
        return (self.parameters - embeddings) * self.weight_value_bytes + embeddings * self.bytes_per_value

    @property
    def kv_values(self) -> int:
        """Cached values of one token in one layer."""
        return 2 * self.kv_dim if self.latent is None else self.latent.cached_values

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache of one token over all layers and devices, no repeated copies."""
        return self.layers * self.kv_values * self.bytes_per_value

    def kv_dim_per_device(self, tp: int) -> int:
        """Keys are split over the devices; where there are fewer KV heads than devices they are repeated."""
        return max(1, self.kv_heads // tp) * self.head_dim

    def kv_values_per_device(self, tp: int) -> int:
        """Cached values of one token in one layer on each device."""
        return 2 * self.kv_dim_per_device(tp) if self.latent is None else self.latent.cached_values

    # --------------------------------------------------------------------------------------------------------- FLOPs

    @property
    def flops_per_token(self) -> int:
        """Matrix multiplications of one token through all layers; without attention and output head."""
        return 2 * (self.active_parameters - self.embedding_parameters)

    @property
    def head_flops(self) -> int:
        """Output head of one sequence."""
        return 2 * self.hidden * self.vocab

    @property
    def attention_flops_per_pair(self) -> int:
        """Scores and weighted sum of one query token against one context token in a prefill, all layers."""
        if self.latent is not None:
            return self.layers * self.latent.flops_per_pair(self.heads)
        return 4 * self.layers * self.query_dim

    @property
    def decode_flops_per_pair(self) -> int:
        """The same in a decode."""
        if self.latent is not None:
            return self.layers * self.latent.decode_flops_per_pair(self.heads)
        return self.attention_flops_per_pair

    def check_tp(self, tp: int) -> None:
        """Refuse a tensor-parallel degree that does not divide the heads."""
        if tp < 1 or self.heads % tp or (self.kv_heads % tp and tp % self.kv_heads):
            raise ProfileError(
                f"tensor parallelism {tp} does not divide {self.name}'s {self.heads} heads ({self.kv_heads} KV heads)"
            )
