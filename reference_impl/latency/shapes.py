"""Dense decoder-only transformers as data, and what follows from their shape."""

from __future__ import annotations

from dataclasses import dataclass

from reference_impl.latency.errors import ProfileError


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder-only transformer. All figures are of the whole model unless a method takes ``tp``."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_context_tokens: int
    tied_embeddings: bool = False
    gated_mlp: bool = True
    bytes_per_value: int = 2
    """Of a weight, and of a key or value: 2 for bf16 and fp16."""
    source: str = "Hugging Face config.json"

    def __post_init__(self) -> None:
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ProfileError(
                f"model {self.name!r}: {self.heads} heads and {self.kv_heads} KV heads; these must divide those"
            )

    @property
    def query_dim(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of the keys (and of the values) of one token in one layer."""
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer's matrices."""
        attention = self.hidden * (2 * self.query_dim + 2 * self.kv_dim)
        return attention + (3 if self.gated_mlp else 2) * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """Matrices and embeddings; norms and biases (under 0.1 %) left out."""
        embeddings = self.vocab * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * self.layer_parameters + embeddings

    @property
    def weight_bytes(self) -> int:
        return self.parameters * self.bytes_per_value

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache of one token over all layers and devices."""
        return 2 * self.layers * self.kv_dim * self.bytes_per_value

    @property
    def flops_per_token(self) -> int:
        """Matrix multiplications of one token through all layers; without attention and output head."""
        return 2 * self.layers * self.layer_parameters

    @property
    def head_flops(self) -> int:
        """Output head of one sequence."""
        return 2 * self.hidden * self.vocab

    @property
    def attention_flops_per_pair(self) -> int:
        """Scores and weighted sum of one query token against one context token, all layers."""
        return 4 * self.layers * self.query_dim

    def kv_dim_per_device(self, tp: int) -> int:
        """Keys are split over the devices; where there are fewer KV heads than devices they are repeated."""
        return max(1, self.kv_heads // tp) * self.head_dim

    def check_tp(self, tp: int) -> None:
        """Refuse a tensor-parallel degree that does not divide the heads."""
        if tp < 1 or self.heads % tp or (self.kv_heads % tp and tp % self.kv_heads):
            raise ProfileError(
                f"tensor parallelism {tp} does not divide {self.name}'s {self.heads} heads ({self.kv_heads} KV heads)"
            )


_META = "meta-llama config.json"
_QWEN = "Qwen config.json"
_BLOOM = "bigscience config.json; ALiBi sets no limit of its own: the context is as far as Splitwise measured"
MODELS = {
    shape.name: shape
    for shape in (
        ModelShape("llama-2-7b", 32, 4096, 32, 32, 128, 11008, 32000, 4096, source=_META),
        ModelShape("llama-2-13b", 40, 5120, 40, 40, 128, 13824, 32000, 4096, source=_META),
        ModelShape("llama-2-70b", 80, 8192, 64, 8, 128, 28672, 32000, 4096, source=_META),
        ModelShape("llama-3-8b", 32, 4096, 32, 8, 128, 14336, 128256, 8192, source=_META),
        ModelShape("llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, 131072, source=_META),
        ModelShape("llama-3-70b", 80, 8192, 64, 8, 128, 28672, 128256, 8192, source=_META),
        ModelShape("llama-3.1-70b", 80, 8192, 64, 8, 128, 28672, 128256, 131072, source=_META),
        ModelShape("qwen3-8b", 36, 4096, 32, 8, 128, 12288, 151936, 40960, source=_QWEN),
        ModelShape("qwen3-14b", 40, 5120, 40, 8, 128, 17408, 151936, 40960, source=_QWEN),
        ModelShape("qwen3-32b", 64, 5120, 64, 8, 128, 25600, 151936, 40960, source=_QWEN),
        ModelShape("opt-13b", 40, 5120, 40, 40, 128, 20480, 50272, 2048, True, False, source="facebook config.json"),
        ModelShape("opt-66b", 64, 9216, 72, 72, 128, 36864, 50272, 2048, True, False, source="facebook config.json"),
        ModelShape("bloom-176b", 70, 14336, 112, 112, 128, 57344, 250880, 32768, True, False, source=_BLOOM),
    )
}
