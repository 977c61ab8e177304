"""The models that are known by name. Shapes: their public Hugging Face configurations."""

from __future__ import annotations

from reference_impl.latency.experts import Experts
from reference_impl.latency.latent import LatentAttention
from reference_impl.latency.shapes import ModelShape

_META = "meta-llama config.json"
_QWEN = "Qwen config.json"
_BLOOM = "bigscience config.json; ALiBi sets no limit of its own: the context is as far as Splitwise measured"
_DEEPSEEK = "deepseek-ai config.json"

_DEEPSEEK_V2_LITE = ModelShape(
    "deepseek-v2-lite",
    layers=27,
    hidden=2048,
    heads=16,
    kv_heads=16,
    head_dim=192,
    intermediate=10944,
    vocab=102400,
    max_context_tokens=163840,
    source=_DEEPSEEK,
    latent=LatentAttention(kv_rank=512, rope_dim=64, nope_dim=128, value_dim=128),
    experts=Experts(routed=64, per_token=6, intermediate=1408, shared_intermediate=2 * 1408, dense_layers=1),
)
_DEEPSEEK_V3 = ModelShape(
    "deepseek-v3",
    layers=61,
    hidden=7168,
    heads=128,
    kv_heads=128,
    head_dim=192,
    intermediate=18432,
    vocab=129280,
    max_context_tokens=163840,
    source=f"{_DEEPSEEK}; without its multi-token prediction module",
    latent=LatentAttention(kv_rank=512, rope_dim=64, nope_dim=128, value_dim=128, query_rank=1536),
    experts=Experts(routed=256, per_token=8, intermediate=2048, shared_intermediate=2048, dense_layers=3),
    fp8_weights=True,
)

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
        ModelShape("llama-3.1-405b", 126, 16384, 128, 8, 128, 53248, 128256, 131072, source=_META),
        ModelShape("codellama-34b", 48, 8192, 64, 8, 128, 22016, 32000, 16384, source="codellama config.json"),
        ModelShape("qwen-72b", 80, 8192, 64, 64, 128, 24576, 152064, 32768, source=f"{_QWEN}, half its intermediate"),
        ModelShape("qwen3-8b", 36, 4096, 32, 8, 128, 12288, 151936, 40960, source=_QWEN),
        ModelShape("qwen3-14b", 40, 5120, 40, 8, 128, 17408, 151936, 40960, source=_QWEN),
        ModelShape("qwen3-32b", 64, 5120, 64, 8, 128, 25600, 151936, 40960, source=_QWEN),
        ModelShape("opt-13b", 40, 5120, 40, 40, 128, 20480, 50272, 2048, True, False, source="facebook config.json"),
        ModelShape("opt-66b", 64, 9216, 72, 72, 128, 36864, 50272, 2048, True, False, source="facebook config.json"),
        ModelShape("bloom-176b", 70, 14336, 112, 112, 128, 57344, 250880, 32768, True, False, source=_BLOOM),
        _DEEPSEEK_V2_LITE,
        _DEEPSEEK_V3,
    )
}
