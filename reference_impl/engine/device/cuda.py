"""One CUDA device: decodes as recorded graphs over a fused kernel, everything else launched call by call.

It has not run on a GPU yet: the graphs' bookkeeping and the reference path are tested on a CPU, the kernel in Triton's
interpreter and, without running it, by compiling it for Hopper.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from reference_impl.engine.batch import Arrangement
from reference_impl.engine.device.chunks import Chunks
from reference_impl.engine.device.forward import logits_of
from reference_impl.engine.device.graphs import Capture, DecodeGraphs
from reference_impl.engine.device.pool_views import PoolViews
from reference_impl.engine.device.ragged import ChunkAttention, RaggedAttention, gathered
from reference_impl.engine.device.tables import PagedDecode, TableDecodes, block_table, context_lengths
from reference_impl.engine.device.varlen import VarlenChunks, paged_varlen
from reference_impl.engine.kv_cache import KvPool
from reference_impl.engine.model_facts import ModelFacts


class CudaDevice:
    """Computes forwards of ``model`` over ``pool``. Without Triton: gathered attention, no graphs."""

    def __init__(
        self,
        model: nn.Module,
        pool: KvPool,
        facts: ModelFacts,
        *,
        kernel: PagedDecode | None,
        capture: Capture,
    ) -> None:
        self._model = model
        self._views = PoolViews(pool)
        self._layers = range(pool.layout.layers)
        self._kernel = kernel
        self._varlen = paged_varlen(self._views, facts.heads)
        self._graphs: DecodeGraphs | None = None
        if kernel is not None:
            blocks = min(-(-facts.max_context_tokens // pool.layout.block_tokens), pool.blocks)
            self._graphs = DecodeGraphs(model, self._views, kernel, blocks, capture)
            with torch.inference_mode():
                self._graphs.record_small_sizes()

    def logits(self, arrangement: Arrangement, after_layer: Callable[[int], None] | None) -> torch.Tensor:
        """See :class:`~reference_impl.engine.device.choice.Device`; layers are reported when all are computed."""
        if self._graphs is not None and self._graphs.fits(arrangement):
            logits = self._graphs.logits(arrangement)
        else:
            logits = logits_of(self._model, arrangement, self._attention(arrangement), self._views.device)
        if after_layer is not None:
            if self._views.device.type == "cuda":
                torch.cuda.synchronize()
            for layer in self._layers:
                after_layer(layer)
        return logits

    def _attention(self, arrangement: Arrangement) -> RaggedAttention:
        if self._kernel is None:
            return gathered(self._views, arrangement)
        device = self._views.device
        decodes = TableDecodes(
            self._views,
            self._kernel,
            block_table(arrangement.decodes, self._views.block_tokens).to(device),
            context_lengths(arrangement.decodes).to(device),
            arrangement.first_decode,
        )
        chunks: ChunkAttention = Chunks(self._views, arrangement.chunks)
        if self._varlen is not None:
            chunks = VarlenChunks(self._views, self._varlen, arrangement.chunks)
        return RaggedAttention(self._views, torch.tensor(arrangement.slots, device=device), chunks, decodes)


def capture_graph(forward: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """Record ``forward`` as a CUDA graph, after running it twice on a stream of its own as recording demands."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            forward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_graph_memory()):  # type: ignore[arg-type]
        result = forward()
    return graph.replay, result


_memory: list[tuple[int, int]] = []


def _graph_memory() -> tuple[int, int]:
    """The memory that all recordings share: only one of them runs at a time."""
    if not _memory:
        _memory.append(torch.cuda.graph_pool_handle())
    return _memory[0]
