"""A cost model composed of fitted operators: matrix multiplications, attention, all-reduces, engine overhead."""

from __future__ import annotations

from typing import ClassVar

from reference_impl.latency.api import Piece, Work
from reference_impl.latency.backends import BACKENDS, Backend
from reference_impl.latency.collective import all_reduce_s
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.interpolate import value
from reference_impl.latency.operators.costs import summed
from reference_impl.latency.operators.profile import DTYPES, Operators, beyond_the_tables, matrices
from reference_impl.latency.shapes import ModelShape

_ENDLESS = 1 << 40
_BYTES = 2
"""Of activations."""
KERNELS_ONLY = BACKENDS["none"]
_HEAD_DTYPE = "bf16"
"""Engines leave the output head in bfloat16 when they quantise a model."""


class Composed:
    """``layers x (QKV, attention, O, MLP, element-wise, 2 all-reduces) + head + overhead``.

    Matrix multiplications by tokens of the iteration, each shard's shape on its own; the output head by sequences.
    Attention: one prefill kernel over all chunks and one decode kernel, linear in query tokens, query-key pairs and KV
    tokens read, so an iteration that repeats grows linearly and a piece never ends. Element-wise operators (norms,
    rotary embedding, activation) and all-reduces are not in the tables: launches, bytes over the bandwidth and the
    link's ring, from the hardware's description.
    """

    needs_spread: ClassVar[bool] = False

    def __init__(
        self,
        operators: Operators,
        model: ModelShape,
        tp: int = 1,
        dtype: str = "bf16",
        backend: Backend = KERNELS_ONLY,
        kv_dtype: str = "bf16",
    ) -> None:
        """``dtype``: of the matrices, one of the profile's. ``kv_dtype``: of keys and values, ``bf16`` or ``fp8``.

        The tables' attention is bfloat16; with fp8 reading KV is taken to cost half. Raises :class:`ProfileError`.
        """
        model.check_tp(tp)
        if model.latent is not None or model.experts is not None:
            raise ProfileError(
                f"{model.name} has latent attention or experts; operator profiles know dense models with keys and "
                "values per head; leave the hardware profile out to take the roofline (--hardware)"
            )
        if model.bytes_per_value != _BYTES:
            raise ProfileError(
                f"the weights of {model.name} take {model.bytes_per_value} bytes each; operator profiles know "
                "bfloat16, and fp8 by name (h100:fp8); measure the model instead: semiflow profile"
            )
        self.operators, self.model, self.tp, self.dtype = operators, model, tp, dtype
        self.hardware, self.backend, self.kv_dtype = operators.hardware, backend, kv_dtype
        self.name = f"operators({operators.name}, {model.name}, tp={tp}, {dtype}, {backend.name})"
        gemm = operators.gemm(dtype)
        self._layer = summed([gemm.curve(columns, inner) for _, columns, inner in matrices(model, tp)])
        self._head = operators.gemm(_HEAD_DTYPE).curve(model.vocab / tp, model.hidden)
        self._set_attention()
        self._dense_by_tokens: dict[int, float] = {}
        self._head_by_sequences: dict[int, float] = {}

    @property
    def provenance(self) -> str:
        """Source, errors on rows kept aside, and where this model leaves the tables."""
        beyond = beyond_the_tables(self.operators, self.model, self.tp)
        reduce = "; all-reduce analytic, from the link" if self.tp > 1 else ""
        return (
            f"{self.operators.provenance(self.dtype)}{reduce}; KV in {self.kv_dtype}; backend {self.backend.name}: "
            f"{self.backend.source}; extrapolated where a run has them: {', '.join(beyond)}"
        )

    @property
    def bytes_per_value(self) -> int:
        """Of a key or value."""
        return DTYPES[self.kv_dtype]

    def _set_attention(self) -> None:
        """Coefficients over all layers."""
        prefill, decode, layers = self.operators.prefill, self.operators.decode, self.model.layers
        queries = self.model.query_dim / self.tp
        keys = self.model.kv_dim_per_device(self.tp)
        read = keys * self.bytes_per_value / DTYPES["bf16"]
        self._prefill_s, self._decode_s = layers * prefill.launch_s, layers * decode.launch_s
        self._query_s, self._key_s = layers * prefill.query_s * queries, layers * prefill.key_s * read
        self._pair_s = layers * prefill.pair_s * queries
        self._sequence_s, self._context_s = layers * decode.sequence_s * keys, layers * decode.context_s * read

    def iteration_s(self, work: Work) -> float:
        """Seconds of one iteration."""
        chunks, decodes, context, _, _ = work
        tokens, attention = decodes, 0.0
        if decodes:
            attention = self._decode_s + self._sequence_s * decodes + self._context_s * context
        if chunks:
            attention += self._prefill_s
            for new, computed in chunks:
                tokens += new
                attention += self._query_s * new + self._key_s * (new + computed)
                attention += self._pair_s * new * (computed + 0.5 * (new + 1))
        return self._dense_s(tokens) + self._head_s(decodes + len(chunks)) + attention

    def piece(self, work: Work) -> Piece:
        """Linear without end: see the class."""
        chunks, decodes, _, _, _ = work
        growth = self._context_s * decodes
        for new, _ in chunks:
            growth += new * (self._pair_s * new + self._key_s)
        return Piece(self.iteration_s(work), growth, _ENDLESS)

    def _dense_s(self, tokens: int) -> float:
        known = self._dense_by_tokens.get(tokens)
        if known is None:
            reduce_s = all_reduce_s(self.hardware, self.tp, tokens * self.model.hidden * _BYTES)
            layer_s = value(self._layer, tokens) + self._elementwise_s(tokens) + 2 * reduce_s
            known = self._dense_by_tokens[tokens] = self.model.layers * layer_s + self.backend.step_overhead_s
        return known

    def _elementwise_s(self, tokens: int) -> float:
        """Two norms, rotary embedding and activation of one layer: four launches, and their reads and writes."""
        model = self.model
        inner = model.intermediate / self.tp
        shard = 2 * (model.query_dim / self.tp + 2 * model.kv_dim_per_device(self.tp)) + 3 * inner
        moved = tokens * (8 * model.hidden + shard) * _BYTES
        return 4 * self.hardware.elementwise_launch_s + moved / self.hardware.hbm_bytes_per_s

    def _head_s(self, sequences: int) -> float:
        known = self._head_by_sequences.get(sequences)
        if known is None:
            known = value(self._head, sequences) + sequences * self.backend.sequence_overhead_s
            self._head_by_sequences[sequences] = known
        return known
