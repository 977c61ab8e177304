"""Pools of KV blocks in files and in private memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from reference_impl.engine.api import EngineError
from reference_impl.engine.kv_cache import KvLayout, KvPool

LAYOUT = KvLayout(layers=3, kv_heads=2, head_dim=4, block_tokens=5, dtype="float32")


def test_sizes_add_up() -> None:
    assert LAYOUT.piece_bytes == 5 * 2 * 4 * 4
    assert LAYOUT.block_bytes == 2 * 3 * LAYOUT.piece_bytes
    assert LAYOUT.bytes_per_token * 5 == LAYOUT.block_bytes
    assert LAYOUT.pool_bytes(7) == 7 * LAYOUT.block_bytes


def test_what_one_mapping_writes_the_other_reads(tmp_path: Path) -> None:
    first = KvPool.create(tmp_path / "pool", LAYOUT, 6)
    second = KvPool.open(tmp_path / "pool", LAYOUT, 6)
    first.tensor[2, 1, 4] = 3.5
    assert float(second.tensor[2, 1, 4].min()) == 3.5
    assert float(second.tensor.sum()) == 3.5 * 40


def test_a_piece_lies_where_the_layout_says(tmp_path: Path) -> None:
    pool = KvPool.create(tmp_path / "pool", LAYOUT, 6)
    pool.tensor[1, 0, 3] = torch.arange(40.0).view(5, 2, 4)
    data = (tmp_path / "pool").read_bytes()
    at = LAYOUT.offset(layer=1, part=0, block=3, blocks=6)
    piece = torch.frombuffer(bytearray(data[at : at + LAYOUT.piece_bytes]), dtype=torch.float32)
    assert piece.tolist() == list(range(40))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_dtype_can_be_shared(tmp_path: Path, dtype: str) -> None:
    layout = KvLayout(1, 1, 2, 2, dtype)  # type: ignore[arg-type]
    KvPool.create(tmp_path / "pool", layout, 2).tensor.fill_(1.5)
    opened = KvPool.open(tmp_path / "pool", layout, 2).tensor
    assert opened.dtype == getattr(torch, dtype)
    assert opened.float().tolist() == torch.full((1, 2, 2, 2, 1, 2), 1.5).tolist()


def test_a_private_pool_has_no_file_and_is_zero() -> None:
    pool = KvPool.create(None, LAYOUT, 2)
    assert pool.path is None
    assert not pool.tensor.any()
    pool.unlink()


def test_unlinking_keeps_the_memory_of_whoever_maps_it(tmp_path: Path) -> None:
    pool = KvPool.create(tmp_path / "pool", LAYOUT, 2)
    pool.unlink()
    pool.unlink()
    pool.tensor.fill_(2.0)
    assert os.listdir(tmp_path) == []
    assert float(pool.tensor.mean()) == 2.0


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    KvPool.create(tmp_path / "pool", LAYOUT, 2)
    with pytest.raises(EngineError, match=r"has 1920 bytes; 3 blocks of .* are 2880 bytes"):
        KvPool.open(tmp_path / "pool", LAYOUT, 3)
    with pytest.raises(EngineError, match="does not exist"):
        KvPool.open(tmp_path / "other", LAYOUT, 3)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pool").write_text("mine", encoding="utf-8")
    with pytest.raises(EngineError, match="must be a new file"):
        KvPool.create(tmp_path / "pool", LAYOUT, 2)
    assert (tmp_path / "pool").read_text(encoding="utf-8") == "mine"


def test_too_little_memory_is_an_error_at_once_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EngineError, match=r"pool of 1920 bytes: No space left .* fewer KV blocks"):
        KvPool.create(tmp_path / "pool", LAYOUT, 2)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("blocks", [0, -1])
def test_a_pool_without_blocks_is_refused(blocks: int) -> None:
    with pytest.raises(EngineError, match=f"a KV pool of {blocks} blocks"):
        KvPool.create(None, LAYOUT, blocks)


def test_a_layout_of_nothing_is_refused() -> None:
    with pytest.raises(EngineError, match="kv_heads is 0; allowed: 1 or more"):
        KvLayout(1, 0, 4, 4, "float32")
    with pytest.raises(EngineError, match="dtype is 'int8'; allowed: float32, bfloat16, float16"):
        KvLayout(1, 1, 4, 4, "int8")  # type: ignore[arg-type]


def test_a_pool_file_on_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be a file"):
        KvPool.create(tmp_path / "pool", LAYOUT, 2, "cuda")
