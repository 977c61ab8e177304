"""A KV pool as bytes: what is written where, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reference_impl.engine.api import EngineError
from reference_impl.engine.kv_cache import KvLayout
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.progress import LayerProgress

LAYOUT = KvLayout(layers=3, kv_heads=2, head_dim=4, block_tokens=5, dtype="bfloat16")


def test_what_is_written_to_blocks_is_read_from_them_and_lies_where_the_layout_says(tmp_path: Path) -> None:
    pool = KvFile.create(tmp_path / "pool", LAYOUT, 7)
    pieces = np.random.default_rng(0).integers(0, 256, (2, 2, LAYOUT.piece_bytes), np.uint8)
    pool.write(1, [6, 2], pieces)
    assert (pool.read(1, [2, 6]) == pieces[:, ::-1]).all()
    assert not pool.read(0, [2, 6]).any()
    assert not pool.read(1, [0, 1, 3, 4, 5]).any()
    data = pool.path.read_bytes()
    assert len(data) == LAYOUT.pool_bytes(7)
    start = LAYOUT.offset(1, 1, 2, 7)
    assert data[start : start + LAYOUT.piece_bytes] == pieces[1, 1].tobytes()
    pool.close()


def test_another_map_of_the_file_sees_what_is_written_also_when_it_is_unlinked(tmp_path: Path) -> None:
    pool = KvFile.create(tmp_path / "pool", LAYOUT, 2)
    other = KvFile(pool.path, LAYOUT)
    pool.path.unlink()
    pool.write(2, [1], np.full((2, 1, LAYOUT.piece_bytes), 9, np.uint8))
    assert (other.read(2, [1]) == 9).all()


def test_blocks_beyond_the_pool_are_refused(tmp_path: Path) -> None:
    pool = KvFile.create(tmp_path / "pool", LAYOUT, 2)
    for blocks in ([2], [-1], [0, 5]):
        with pytest.raises(EngineError, match="allowed: 0 to 1"):
            pool.read(0, blocks)
    with pytest.raises(EngineError, match="allowed: 0 to 1"):
        pool.write(0, [2], np.zeros((2, 1, LAYOUT.piece_bytes), np.uint8))


def test_a_file_that_is_no_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="its owner is gone"):
        KvFile(tmp_path / "nothing", LAYOUT)
    (tmp_path / "odd").write_bytes(bytes(LAYOUT.block_bytes + 1))
    with pytest.raises(EngineError, match=f"allowed: a multiple of {LAYOUT.block_bytes}"):
        KvFile(tmp_path / "odd", LAYOUT)


def test_progress_only_grows_and_a_later_iteration_has_all_layers_of_an_earlier_one(tmp_path: Path) -> None:
    worker = LayerProgress(tmp_path / "progress", create=True)
    other = LayerProgress(tmp_path / "progress")
    assert not other.reached(1, 1)
    worker.begin(1)
    assert not other.reached(1, 1)
    worker.wrote(0)
    assert other.reached(1, 1)
    assert not other.reached(1, 2)
    worker.begin(2)
    worker.wrote(0)
    assert other.reached(1, 3)
    assert not other.reached(2, 2)
    with pytest.raises(EngineError, match="its owner is gone"):
        LayerProgress(tmp_path / "nothing")
