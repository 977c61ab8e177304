"""An analytic cost model: every operator takes the longer of its compute and its memory time."""

from __future__ import annotations

from reference_impl.latency.api import Piece, Work
from reference_impl.latency.backends import Backend
from reference_impl.latency.backends import backend as find_backend
from reference_impl.latency.collective import all_reduce_s
from reference_impl.latency.devices import Hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.shapes import ModelShape

FOREVER = 1 << 40
_CACHED_TOKENS = 1 << 17


class Roofline:
    """One model on ``tp`` devices of one kind.

    Matrix multiplications: ``launch + max(flops / peak, bytes / bandwidth)``, each with its efficiency. Attention:
    ``launch + flops + bytes`` (the sum fits measured kernels better than the maximum), so an iteration that repeats
    grows linearly and a piece never ends. Element-wise operators: bytes. Output head: sequences that get a token.
    Tensor parallelism: two all-reduces per layer. The engine adds its overhead per iteration and sequence.
    """

    needs_spread = False

    def __init__(self, hardware: Hardware, model: ModelShape, tp: int = 1, backend: str = "vllm") -> None:
        model.check_tp(tp)
        if model.bytes_per_value != 2:
            raise ProfileError(
                f"the weights of {model.name} take {model.bytes_per_value} bytes each; this cost model knows bfloat16"
                " and float16 only; measure the model instead: semiflow profile"
            )
        engine = find_backend(backend)
        self.hardware, self.model, self.tp, self.backend = hardware, model, tp, engine
        self.name = f"roofline({hardware.name}, {model.name}, tp={tp}, {engine.name})"
        self.provenance = _provenance(hardware, engine)
        self._dense_by_tokens: dict[int, float] = {}
        self._head_by_sequences: dict[int, float] = {}
        self._decode_base_by_sequences: dict[int, float] = {}
        self._set_attention()

    def _set_attention(self) -> None:
        """Coefficients of attention over all layers: per query-context pair, per query token, per context token."""
        hardware, model, tp = self.hardware, self.model, self.tp
        peak = hardware.bf16_flops * hardware.attention_efficiency
        read = hardware.hbm_bytes_per_s * hardware.attention_io_efficiency
        query_bytes = 2 * model.layers * model.query_dim / tp * model.bytes_per_value
        kv_bytes = 2 * model.layers * model.kv_dim_per_device(tp) * model.bytes_per_value
        self._pair_s = model.attention_flops_per_pair / tp / peak
        self._query_s = query_bytes / read
        self._key_s = kv_bytes / read
        self._prefill_launch_s = model.layers * hardware.attention_launch_s
        self._decode_launch_s = model.layers * hardware.decode_attention_launch_s
        self._context_s = kv_bytes / (hardware.hbm_bytes_per_s * hardware.decode_attention_efficiency)

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
            growth += new * (self._pair_s * new + self._key_s)
        return Piece(self.iteration_s(work), growth, FOREVER)

    def _decode_base_s(self, decodes: int) -> float:
        """All of a decode iteration that does not depend on the contexts."""
        base = self._dense_s(decodes) + self._sequences_s(decodes) + self._decode_launch_s
        self._decode_base_by_sequences[decodes] = base
        return base

    def _dense_s(self, tokens: int) -> float:
        """Matrix multiplications, element-wise operators and all-reduces of all layers, and the step overhead."""
        dense = self._layer_s(tokens) * self.model.layers + self.backend.step_overhead_s
        if tokens < _CACHED_TOKENS:
            self._dense_by_tokens[tokens] = dense
        return dense

    def _layer_s(self, tokens: int) -> float:
        model, tp = self.model, self.tp
        query, kv = model.query_dim // tp, model.kv_dim_per_device(tp)
        inner = model.intermediate / tp
        up = 2 * inner if model.gated_mlp else inner
        products = (
            self._gemm_s(tokens, model.hidden, query + 2 * kv)
            + self._gemm_s(tokens, query, model.hidden)
            + self._gemm_s(tokens, model.hidden, up)
            + self._gemm_s(tokens, inner, model.hidden)
        )
        values = 2 * 4 * model.hidden + 2 * (query + kv) + up + inner
        moved_s = tokens * values * model.bytes_per_value / self.hardware.hbm_bytes_per_s
        elementwise = 4 * self.hardware.elementwise_launch_s + moved_s
        return (
            products + elementwise + 2 * all_reduce_s(self.hardware, tp, tokens * model.hidden * model.bytes_per_value)
        )

    def _sequences_s(self, sequences: int) -> float:
        """Output head, and the engine's work per sequence."""
        head = self._gemm_s(sequences, self.model.hidden, self.model.vocab / self.tp)
        head += sequences * self.backend.sequence_overhead_s
        self._head_by_sequences[sequences] = head
        return head

    def _gemm_s(self, rows: int, inner: float, columns: float) -> float:
        """``rows x inner`` times ``inner x columns``."""
        hardware = self.hardware
        flops_s = 2.0 * rows * inner * columns / (hardware.bf16_flops * hardware.gemm_efficiency)
        moved = (inner * columns + rows * (inner + columns)) * self.model.bytes_per_value
        bytes_s = moved / (hardware.hbm_bytes_per_s * hardware.gemm_bandwidth_efficiency)
        return hardware.gemm_launch_s + max(flops_s, bytes_s)


_MEASURED_ERROR = {
    "h100": "TPOT of Llama-3.1-8B on H100 with TensorRT-LLM, no overhead, nothing fitted: median error 5 %, 90th "
    "percentile 8 % (66 measurements in AIConfigurator)",
    "h200": "composed operator times of Llama-3.1-8B: prefill within 7 %, decode within 13 %",
    "a100-80g": "composed operator times of Llama-3.1-8B: prefill of 512 tokens or more within 6 % (256: 18 %), "
    "decode within 12 %",
}
"""What was measured against what; a device that is not here is uncalibrated."""


def _provenance(hardware: Hardware, engine: Backend) -> str:
    error = _MEASURED_ERROR.get(hardware.name, "uncalibrated against any run")
    return f"analytic roofline; {hardware.source}; {error}; backend {engine.name}: {engine.source}"


def roofline(hardware: Hardware, model: ModelShape, tp: int = 1, backend: str = "vllm") -> Roofline:
    """The roofline of ``model`` on ``tp`` x ``hardware`` under ``backend`` (``vllm``, ``vllm-v0``, ``none``)."""
    return Roofline(hardware, model, tp, backend)
