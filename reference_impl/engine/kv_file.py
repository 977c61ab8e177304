"""A KV pool that lies in a file, as bytes: what hand-over needs of it, without torch."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reference_impl.engine.api import EngineError
from reference_impl.engine.kv_cache import KvLayout, reserve_file


class KvFile:
    """An open pool file; the map stays valid when the file is unlinked."""

    def __init__(self, path: Path, layout: KvLayout) -> None:
        self.path = path
        self.layout = layout
        try:
            with path.open("r+b") as file:
                size = os.fstat(file.fileno()).st_size
                self._map = mmap.mmap(file.fileno(), size)
        except (OSError, ValueError) as error:
            raise EngineError(f"the KV pool {path} cannot be opened: {error}; its owner is gone") from error
        self.blocks, rest = divmod(size, layout.block_bytes)
        if rest:
            raise EngineError(f"the KV pool {path} has {size} bytes; allowed: a multiple of {layout.block_bytes}")
        self.pieces: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self.pieces = self.pieces.reshape(layout.layers, 2, self.blocks, layout.piece_bytes)

    @classmethod
    def create(cls, path: Path, layout: KvLayout, blocks: int) -> KvFile:
        """A new file of zeros whose memory is really there. Raises EngineError."""
        reserve_file(path, layout.pool_bytes(blocks))
        return cls(path, layout)

    def read(self, layer: int, blocks: Sequence[int]) -> NDArray[np.uint8]:
        """A copy of one layer's KV of these blocks: [2, blocks, piece]."""
        return np.take(self.pieces[layer], self._checked(blocks), axis=1)

    def write(self, layer: int, blocks: Sequence[int], pieces: NDArray[np.uint8]) -> None:
        """Put one layer's KV into these blocks."""
        self.pieces[layer][:, self._checked(blocks)] = pieces.reshape(2, len(blocks), self.layout.piece_bytes)

    def close(self) -> None:
        """Let the memory go, as far as nobody else maps it."""
        del self.pieces
        self._map.close()

    def _checked(self, blocks: Sequence[int]) -> NDArray[np.intp]:
        places = np.asarray(blocks, np.intp)
        if len(places) and (places.min() < 0 or places.max() >= self.blocks):
            raise EngineError(f"blocks {places.min()} to {places.max()} were named; allowed: 0 to {self.blocks - 1}")
        return places
