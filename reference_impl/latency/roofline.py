"""An analytic cost model: every operator takes the longer of its compute and its memory time."""

from __future__ import annotations

from reference_impl.latency.api import Piece, Work
from reference_impl.latency.backends import Backend
from reference_impl.latency.backends import backend as find_backend
from reference_impl.latency.collective import all_reduce_s, all_to_all_s
from reference_impl.latency.devices import Hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.layer import Block, Product, attention_block, dense_block, expert_block
from reference_impl.latency.shapes import ModelShape

FOREVER = 1 << 40
_CACHED_TOKENS = 1 << 17


class Roofline:
    """One model on ``tp`` devices of one kind.

    Matrix multiplications: ``launch + max(flops / peak, bytes / bandwidth)``, each with its efficiency. Attention:
    ``launch + flops + bytes`` (the sum fits measured kernels better than the maximum), so an iteration that repeats
    grows linearly and a piece never ends. Decode attention: the longer of FLOPs (latent attention of many heads) and
    bytes (all other). Element-wise operators: bytes. Output head: sequences that get a token.
    Tensor parallelism: two all-reduces per layer. Experts: all those that the batch is expected to touch are read;
    with ``expert_parallel`` two all-to-alls take the place of their all-reduce, each device sending the hidden states
    of its part of the tokens to all of their experts. The engine adds its overhead per iteration and sequence.
    """

    needs_spread = False

    def __init__(
        self,
        hardware: Hardware,
        model: ModelShape,
        tp: int = 1,
        backend: str = "vllm",
        expert_parallel: bool = False,
    ) -> None:
        model.check_tp(tp)
        if model.bytes_per_value != 2:
            raise ProfileError(
                f"the weights of {model.name} take {model.bytes_per_value} bytes each; this cost model knows bfloat16"
                " and float16 only; measure the model instead: semiflow profile"
            )
        if expert_parallel:
            _check_expert_parallel(model, tp)
        engine = find_backend(backend)
        self.hardware, self.model, self.tp, self.backend = hardware, model, tp, engine
        self.expert_parallel = expert_parallel
        split = f"tp={tp}, expert parallel" if expert_parallel else f"tp={tp}"
        self.name = f"roofline({hardware.name}, {model.name}, {split}, {engine.name})"
        self.provenance = _provenance(hardware, engine, model, expert_parallel)
        self._layers_flops = _layers_flops(hardware, model) * hardware.gemm_efficiency
        self._attention = attention_block(model, tp)
        self._mlp = dense_block(model, model.intermediate, tp)
        self._dense_by_tokens: dict[int, float] = {}
        self._head_by_sequences: dict[int, float] = {}
        self._decode_base_by_sequences: dict[int, float] = {}
        self._set_attention()

    def _set_attention(self) -> None:
        """Coefficients of attention over all layers: per query-context pair, per query token, per context token."""
        hardware, model, tp = self.hardware, self.model, self.tp
        latent, heads = model.latent, model.heads // tp
        peak = hardware.bf16_flops * hardware.attention_efficiency
        read = hardware.hbm_bytes_per_s * hardware.attention_io_efficiency
        query_bytes = 2 * model.layers * model.query_dim / tp * model.bytes_per_value
        kv_bytes = model.layers * model.kv_values_per_device(tp) * model.bytes_per_value
        key_bytes = kv_bytes
        self._expand_s = 0.0
        if latent is not None:
            key_bytes = model.layers * latent.expanded_values(heads) * model.bytes_per_value
            self._expand_s = model.layers * latent.expansion_flops(heads) / self._layers_flops
        self._pair_s = model.attention_flops_per_pair / tp / peak
        self._query_s = query_bytes / read
        self._key_s = key_bytes / read
        self._prefill_launch_s = model.layers * hardware.attention_launch_s
        self._decode_launch_s = model.layers * hardware.decode_attention_launch_s
        read_s = kv_bytes / (hardware.hbm_bytes_per_s * hardware.decode_attention_efficiency)
        self._context_s = max(read_s, model.decode_flops_per_pair / tp / peak)

    def iteration_s(self, work: Work) -> float:
        """Seconds of one iteration."""
        chunks, decodes, context, _, _ = work
        if not chunks:
            base = self._decode_base_by_sequences.get(decodes)
            if base is None:
                base = self._decode_base_s(decodes)
            return base + self._context_s * context
        tokens, attention = decodes, 0.0
        for new, computed in chunks:
            tokens += new
            pairs = new * (computed + 0.5 * (new + 1))
            attention += self._pair_s * pairs + self._query_s * new + self._key_s * (new + computed)
            attention += self._expand_s * computed
        dense = self._dense_by_tokens.get(tokens) or self._dense_s(tokens)
        sequences = decodes + len(chunks)
        head = self._head_by_sequences.get(sequences) or self._sequences_s(sequences)
        return dense + head + self._prefill_launch_s + attention + self._context_s * context

    def piece(self, work: Work) -> Piece:
        """Linear without end: see the class."""
        chunks, decodes, context, _, _ = work
        growth = self._context_s * decodes
        if not chunks:
            base = self._decode_base_by_sequences.get(decodes)
            if base is None:
                base = self._decode_base_s(decodes)
            return Piece(base + self._context_s * context, growth, FOREVER)
        for new, _ in chunks:
            growth += new * (self._pair_s * new + self._key_s + self._expand_s)
        return Piece(self.iteration_s(work), growth, FOREVER)

    def _decode_base_s(self, decodes: int) -> float:
        """All of a decode iteration that does not depend on the contexts."""
        base = self._dense_s(decodes) + self._sequences_s(decodes) + self._decode_launch_s
        self._decode_base_by_sequences[decodes] = base
        return base

    def _dense_s(self, tokens: int) -> float:
        """Matrix multiplications, element-wise operators and exchanges of all layers, and the step overhead."""
        model, experts = self.model, self.model.experts
        dense = self._layer_s(tokens, self._mlp, 2 * self._all_reduce_s(tokens)) * (model.layers - model.expert_layers)
        if experts is not None:
            block = expert_block(model, experts, self.tp, self.expert_parallel, tokens)
            dense += self._layer_s(tokens, block, self._experts_exchange_s(tokens)) * model.expert_layers
        dense += self.backend.step_overhead_s
        if tokens < _CACHED_TOKENS:
            self._dense_by_tokens[tokens] = dense
        return dense

    def _layer_s(self, tokens: int, mlp: Block, exchange_s: float) -> float:
        products = 0.0
        for product in (*self._attention.products, *mlp.products):
            products += self._gemm_s(tokens, product, self._layers_flops, self.model.weight_value_bytes)
        values = self._attention.values + mlp.values
        moved_s = tokens * values * self.model.bytes_per_value / self.hardware.hbm_bytes_per_s
        elementwise = 4 * self.hardware.elementwise_launch_s + moved_s
        return products + elementwise + exchange_s

    def _all_reduce_s(self, tokens: int) -> float:
        return all_reduce_s(self.hardware, self.tp, tokens * self.model.hidden * self.model.bytes_per_value)

    def _experts_exchange_s(self, tokens: int) -> float:
        """What the devices send each other in a layer with experts."""
        experts = self.model.experts
        if experts is None or not self.expert_parallel:
            return 2 * self._all_reduce_s(tokens)
        sent_bytes = tokens / self.tp * experts.per_token * self.model.hidden * self.model.bytes_per_value
        return self._all_reduce_s(tokens) + 2 * all_to_all_s(self.hardware, self.tp, sent_bytes)

    def _sequences_s(self, sequences: int) -> float:
        """Output head, and the engine's work per sequence."""
        product = Product(self.model.hidden, self.model.vocab / self.tp)
        flops = self.hardware.bf16_flops * self.hardware.gemm_efficiency
        head = self._gemm_s(sequences, product, flops, self.model.bytes_per_value)
        head += sequences * self.backend.sequence_overhead_s
        self._head_by_sequences[sequences] = head
        return head

    def _gemm_s(self, tokens: int, product: Product, flops: float, weight_bytes: int) -> float:
        """One kernel at ``flops`` per second."""
        inner, columns, rows, matrices = product
        hardware, rows = self.hardware, tokens * rows
        flops_s = 2.0 * rows * inner * columns / flops
        moved = matrices * inner * columns * weight_bytes + rows * (inner + columns) * self.model.bytes_per_value
        bytes_s = moved / (hardware.hbm_bytes_per_s * hardware.gemm_bandwidth_efficiency)
        return hardware.gemm_launch_s + max(flops_s, bytes_s)


def _layers_flops(hardware: Hardware, model: ModelShape) -> float:
    """Peak FLOP/s of the layers' matrix multiplications."""
    if not model.fp8_weights:
        return hardware.bf16_flops
    if hardware.fp8_flops is None:
        raise ProfileError(f"{model.name} has fp8 weights, and {hardware.name} does not compute in fp8; choose another")
    return hardware.fp8_flops


def _check_expert_parallel(model: ModelShape, tp: int) -> None:
    if model.experts is None:
        raise ProfileError(f"{model.name} has no experts to be parallel; leave expert parallelism out")
    if model.experts.routed % tp:
        raise ProfileError(f"{tp} devices do not divide the {model.experts.routed} experts of {model.name}")


_MEASURED_ERROR = {
    "h100": "TPOT of Llama-3.1-8B on H100 with TensorRT-LLM, no overhead, nothing fitted: median error 5 %, 90th "
    "percentile 8 % (66 measurements in AIConfigurator)",
    "h200": "composed operator times of Llama-3.1-8B: prefill within 7 %, decode within 13 %",
    "a100-80g": "composed operator times of Llama-3.1-8B: prefill of 512 tokens or more within 6 % (256: 18 %), "
    "decode within 12 %",
}
"""What was measured against what; a device that is not here is uncalibrated."""


def _provenance(hardware: Hardware, engine: Backend, model: ModelShape, expert_parallel: bool) -> str:
    assumed = _assumed(model, expert_parallel)
    error = _MEASURED_ERROR.get(hardware.name, "uncalibrated against any run")
    error = f"uncalibrated for {'; '.join(assumed)}" if assumed else error
    return f"analytic roofline; {hardware.source}; {error}; backend {engine.name}: {engine.source}"


def _assumed(model: ModelShape, expert_parallel: bool) -> list[str]:
    """What no measurement that we know of has checked."""
    found = []
    if model.experts is not None:
        found.append(
            "experts (routing even: n(1 - (1 - k/n)^tokens) of n experts read per layer, k computed per token)"
        )
    if expert_parallel:
        found.append("expert parallelism (two all-to-alls per layer over the device link at all-reduce efficiency)")
    if model.latent is not None:
        found.append("latent attention (prefill expands, decode absorbs; kernels as efficient as those of plain heads)")
    if model.fp8_weights:
        found.append("fp8 weights (products as efficient as in bf16; activations and KV in 16 bits)")
    return found


def roofline(
    hardware: Hardware, model: ModelShape, tp: int = 1, backend: str = "vllm", expert_parallel: bool = False
) -> Roofline:
    """The roofline of ``model`` on ``tp`` x ``hardware`` under ``backend`` (``vllm``, ``vllm-v0``, ``none``)."""
    return Roofline(hardware, model, tp, backend, expert_parallel)
