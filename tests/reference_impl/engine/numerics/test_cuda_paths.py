"""What a GPU would run, on a CPU: the recorder of decodes is faked, the kernel over block tables written out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from reference_impl.engine.api import ChunkRow, DecodeRow, ForwardBatch
from reference_impl.engine.batch import Arrangement, arrange
from reference_impl.engine.device import graphs
from reference_impl.engine.device.cpu import CpuDevice
from reference_impl.engine.device.cuda import CudaDevice
from reference_impl.engine.device.pool_views import PoolViews
from reference_impl.engine.device.varlen import paged_varlen
from reference_impl.engine.kv_cache import KvLayout, KvPool
from reference_impl.engine.model import load_model
from reference_impl.engine.model_facts import read_facts
from reference_impl.engine.weights import ModelSource

BLOCK_TOKENS, BLOCKS = 4, 120


def written_out(
    query: torch.Tensor, kv: torch.Tensor, tables: torch.Tensor, lengths: torch.Tensor, scale: float, block_tokens: int
) -> torch.Tensor:
    """What the fused kernel computes."""
    out = torch.empty_like(query)
    assert tables.dtype == lengths.dtype == torch.int32
    for row in range(query.shape[0]):
        blocks = tables[row].long()[:, None] * block_tokens + torch.arange(block_tokens)
        keys, values = kv[:, blocks.flatten()[: int(lengths[row])]].transpose(1, 2)
        asked = query[row].view(keys.shape[0], -1, query.shape[-1])
        out[row] = scaled_dot_product_attention(asked, keys, values, scale=scale).view(query.shape[1:])
    return out


class Recorder:
    """Replays by computing again, into the tensor of the recording."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, forward: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        result = forward()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            result.copy_(forward())

        return replay, result


class Twins:
    """The same model over two pools: one as a CPU serves it, one as a GPU would."""

    def __init__(self, folder: Path, kernel: Any = written_out) -> None:
        facts = read_facts(folder)
        model = load_model(folder, ModelSource(str(folder)))
        self.pools = [KvPool.create(None, facts.kv_layout(BLOCK_TOKENS, "float32"), BLOCKS) for _ in range(2)]
        self.recorder = Recorder()
        self.cpu = CpuDevice(model, self.pools[0])
        self.gpu = CudaDevice(model, self.pools[1], facts, kernel=kernel, capture=self.recorder)

    def run(self, *chunks: ChunkRow, decodes: tuple[DecodeRow, ...] = ()) -> None:
        """Both compute the same batch: the logits and the pools must be the same."""
        arranged: list[Arrangement] = [arrange(ForwardBatch(0, chunks, decodes), BLOCK_TOKENS, int) for _ in range(2)]
        with torch.inference_mode():
            wanted, found = self.cpu.logits(arranged[0], None), self.gpu.logits(arranged[1], None)
        assert torch.allclose(wanted, found, atol=1e-4)
        assert torch.allclose(self.pools[0].tensor, self.pools[1].tensor, atol=1e-4)


def prompt(request_id: int, tokens: int, first_block: int, start: int = 0) -> ChunkRow:
    blocks = list(range(first_block, first_block + 12))
    return ChunkRow(request_id, [2 + (request_id * 31 + i) % 90 for i in range(tokens)], start, blocks, True)


@pytest.fixture
def _small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "SIZES", (1, 2, 4, 8))
    monkeypatch.setattr(graphs, "RECORDED_AT_START", 2)


@pytest.mark.usefixtures("_small_sizes")
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_decodes_of_every_size_are_what_they_would_be_alone(family: str, checkpoints: dict[str, Path]) -> None:
    """Batches between two sizes are filled up; that changes neither the logits nor anybody's KV."""
    twins = Twins(checkpoints[family])
    twins.run(*(prompt(number, 3 + 5 * number, 12 * number) for number in range(9)))
    for count in (1, 2, 3, 4, 5, 8, 9):
        rows = [
            DecodeRow(number, 7 + number, 3 + 5 * number, range(12 * number, 12 * number + 12))
            for number in range(count)
        ]
        twins.run(decodes=tuple(reversed(rows)))
    assert twins.recorder.recorded == 4
    assert twins.recorder.replayed == 6  # nine rows are more than a recording holds


@pytest.mark.usefixtures("_small_sizes")
def test_mixed_batches_and_continued_chunks_use_tables_too(checkpoints: dict[str, Path]) -> None:
    twins = Twins(checkpoints["mistral"])
    twins.run(prompt(0, 9, 0), prompt(1, 30, 12))
    decode = DecodeRow(0, 5, 9, range(12))
    twins.run(prompt(1, 8, 12, start=30), prompt(2, 14, 40), decodes=(decode,))
    assert twins.recorder.replayed == 0


def test_without_a_kernel_everything_is_gathered(checkpoints: dict[str, Path]) -> None:
    twins = Twins(checkpoints["llama"], kernel=None)
    twins.run(prompt(0, 9, 0), prompt(1, 30, 12))
    twins.run(decodes=(DecodeRow(1, 4, 30, range(12, 24)), DecodeRow(0, 5, 9, range(12))))
    assert twins.recorder.recorded == 0


@pytest.mark.usefixtures("_small_sizes")
def test_layers_are_reported_after_the_whole_forward(checkpoints: dict[str, Path]) -> None:
    twins = Twins(checkpoints["llama"])
    seen: list[int] = []
    arranged = arrange(ForwardBatch(0, (), (DecodeRow(0, 5, 0, [3]),)), BLOCK_TOKENS, int)
    with torch.inference_mode():
        twins.gpu.logits(arranged, seen.append)
    assert seen == [0, 1]


def varlen_written_out(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    key_starts: None,
    longest_query: int,
    longest_context: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: torch.Tensor,
    block_table: torch.Tensor,
) -> torch.Tensor:
    """torch's variable-length attention, as its documentation has it: causal, aligned at the last token."""
    assert key_starts is None
    assert window_size == (-1, 0)
    assert starts.dtype == seqused_k.dtype == block_table.dtype == torch.int32
    assert longest_context == int(seqused_k.max())
    out = torch.empty_like(query)
    for place, context in enumerate(seqused_k.tolist()):
        low, high = int(starts[place]), int(starts[place + 1])
        assert high - low <= longest_query
        key, value = (
            pages[block_table[place].long()].flatten(0, 1)[:context].transpose(0, 1) for pages in (keys, values)
        )
        mask = torch.ones(high - low, context, dtype=torch.bool).tril(context - (high - low))
        asked = query[low:high].transpose(0, 1)
        found = scaled_dot_product_attention(asked, key, value, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
        out[low:high] = found.transpose(0, 1)
    return out


@pytest.mark.parametrize("group", [1, 3])
def test_varlen_attention_is_used_where_it_agrees(group: int) -> None:
    views = PoolViews(KvPool.create(None, KvLayout(1, 2, 8, 4, "float32"), 6))
    assert paged_varlen(views, 2 * group, varlen_written_out) is varlen_written_out
    assert not views.layer(0).any()


def test_varlen_attention_that_disagrees_or_fails_is_not_used() -> None:
    views = PoolViews(KvPool.create(None, KvLayout(1, 2, 8, 4, "float32"), 6))

    def wrong(query: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        return varlen_written_out(query, *args, **{**options, "scale": 9.0})

    def failing(*args: Any, **options: Any) -> torch.Tensor:
        raise NotImplementedError("not on this device")

    assert paged_varlen(views, 2, wrong) is None
    assert paged_varlen(views, 2, failing) is None
    assert not views.layer(0).any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_torchs_own_varlen_attention_is_found_not_to_run_on_a_cpu() -> None:
    assert paged_varlen(PoolViews(KvPool.create(None, KvLayout(1, 2, 8, 4, "float32"), 6)), 2) is None


def test_the_device_code_is_imported_without_a_gpu_and_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None; import reference_impl.engine.runner as r; print(r.Runner.__name__)"
    )
    root = Path(__file__).parents[4]
    found = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True)
    assert found.stdout == "Runner\n"


def test_a_mask_for_a_gpu_is_no_view_into_another_one() -> None:
    """Fused kernels refuse a mask that begins at an address that is not aligned."""
    layout = KvLayout(layers=1, kv_heads=1, head_dim=8, block_tokens=BLOCK_TOKENS, dtype="bfloat16")
    on_cpu = PoolViews(KvPool.create(None, layout, 4, "cpu")).causal_mask(11, 23)
    mask = PoolViews(KvPool.create(None, layout, 4, "meta")).causal_mask(11, 23)
    assert mask.shape == on_cpu.shape
    assert mask.storage_offset() == 0
    assert mask.is_contiguous()
    assert on_cpu.storage_offset() > 0
