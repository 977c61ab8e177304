"""How many KV blocks fit beside the weights."""

from __future__ import annotations

from reference_impl.latency.devices import Hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.pipeline import stage_layers
from reference_impl.latency.shapes import ModelShape

DEFAULT_RESERVE_BYTES = 1e9
"""Per device, for activations, CUDA context and graphs: an assumption. vLLM 0.28 kept 0.5 GB for Qwen3-32B with
2048-token batches (its ``num_gpu_blocks`` in LLMServingSim's record); longer batches take more."""


def kv_pool_blocks(
    hardware: Hardware,
    model: ModelShape,
    tp: int = 1,
    block_tokens: int = 16,
    memory_fraction: float = 0.9,
    reserve_bytes: float = DEFAULT_RESERVE_BYTES,
    pp: int = 1,
    weight_bytes: float | None = None,
    kv_bytes_per_value: int | None = None,
) -> int:
    """KV blocks of one instance over ``tp`` devices, or ``pp`` stages of as many: memory times fraction, less weights
    and reserve. The first stage decides: it has the input embeddings and most layers (counted as equally large).

    ``weight_bytes`` (of the whole model) and ``kv_bytes_per_value`` are the model's own unless it is quantised.
    Raises :class:`ProfileError` where the weights and one block do not fit.
    """
    model.check_tp(tp)
    if not 0 < memory_fraction <= 1:
        raise ProfileError(f"memory fraction is {memory_fraction!r}; it must be in (0, 1]")
    if block_tokens < 1:
        raise ProfileError(f"block size is {block_tokens!r} tokens; it must be at least 1")
    layers = stage_layers(model, pp)[0]
    quantised = 1.0 if weight_bytes is None else weight_bytes / model.weight_bytes
    weights = _stage_weight_bytes(model, layers) * quantised / tp
    free = hardware.memory_bytes * memory_fraction - weights - reserve_bytes
    value_bytes = kv_bytes_per_value or model.bytes_per_value
    block_bytes = layers * model.kv_values_per_device(tp) * value_bytes * block_tokens
    blocks = int(free // block_bytes)
    if blocks < 1:
        raise ProfileError(
            f"{model.name} does not fit {tp * pp} x {hardware.name}: {weights / 1e9:.1f} GB of weights and "
            f"{reserve_bytes / 1e9:.1f} GB reserve per device leave no room for KV in {memory_fraction:g} of "
            f"{hardware.memory_bytes / 1e9:.1f} GB; use more devices (tensor parallelism) or a smaller model"
        )
    return blocks


def _stage_weight_bytes(model: ModelShape, layers: int) -> float:
    """Weights of the first stage: so many average layers and the input embeddings (all embeddings if it is alone)."""
    if layers == model.layers:
        return model.weight_bytes
    embeddings = model.embedding_parameters * model.bytes_per_value
    input_embeddings = model.vocab * model.hidden * model.bytes_per_value
    return (model.weight_bytes - embeddings) * layers / model.layers + input_embeddings
