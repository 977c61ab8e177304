"""Fetching the KV of a parcel into one's own pool: from a file on this host, or from whoever serves it.

The decode instance pulls. Layers come in order; those of an early parcel as soon as the source has written them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reference_impl.engine.api import EngineError
from reference_impl.engine.kv_cache import KvLayout
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.kv_wire import Question, ask
from reference_impl.engine.progress import LayerProgress
from reference_impl.engine.step import Parcel

LAYER_POLL_S = 0.0005
_BUFFER_BYTES = 1 << 22
_AT_ONCE = 256
"""Blocks copied before others get their turn in the event loop."""


class Target(Protocol):
    """Where KV is pulled to: a :class:`KvFile`."""

    @property
    def layout(self) -> KvLayout: ...
    def write(self, layer: int, blocks: Sequence[int], pieces: NDArray[np.uint8]) -> None: ...


class Puller(Protocol):
    """Moves KV to this instance."""

    async def pull(self, parcel: Parcel, sources: Sequence[int], pool: Target, blocks: Sequence[int]) -> None:
        """Copy the parcel's blocks ``sources`` into ``blocks`` of ``pool``. Raises where that cannot be
        done; whoever calls sets the time limit."""
        ...

    def trim(self) -> None:
        """Let go of what belongs to instances that are gone."""
        ...

    def close(self) -> None: ...


class FilePuller:
    """Copies out of the source's pool file, which it keeps mapped as long as it exists."""

    def __init__(self) -> None:
        self._pools: dict[str, KvFile] = {}
        self._progress: dict[str, LayerProgress] = {}

    async def pull(self, parcel: Parcel, sources: Sequence[int], pool: Target, blocks: Sequence[int]) -> None:
        source = self._pool(parcel, pool)
        progress = self._progress_of(parcel.progress) if parcel.progress else None
        for layer in range(pool.layout.layers):
            while progress is not None and not progress.reached(parcel.ordinal, layer + 1):
                if not os.path.exists(parcel.progress):
                    raise EngineError("its source is gone")
                await asyncio.sleep(LAYER_POLL_S)
            for start in range(0, len(blocks), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                pool.write(layer, blocks[part], source.read(layer, sources[part]))
                await asyncio.sleep(0)

    def trim(self) -> None:
        self._pools = {path: pool for path, pool in self._pools.items() if os.path.exists(path)}
        self._progress = {path: progress for path, progress in self._progress.items() if os.path.exists(path)}

    def close(self) -> None:
        self._pools.clear()  # whoever still copies has a reference of its own; with the last one the memory goes
        self._progress.clear()

    def _pool(self, parcel: Parcel, like: Target) -> KvFile:
        path = parcel.address.removeprefix("shm:")
        if path not in self._pools:
            self._pools[path] = KvFile(Path(path), like.layout)
        return self._pools[path]

    def _progress_of(self, path: str) -> LayerProgress:
        if path not in self._progress:
            self._progress[path] = LayerProgress(Path(path))
        return self._progress[path]


class WirePuller:
    """Asks the source's :class:`KvServer` for the blocks, over one connection for each parcel."""

    async def pull(self, parcel: Parcel, sources: Sequence[int], pool: Target, blocks: Sequence[int]) -> None:
        host, _, port = parcel.address.removeprefix("tcp:").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=_BUFFER_BYTES)
        try:
            ordinal = parcel.ordinal if parcel.early else None
            await ask(reader, writer, Question(parcel.request_id, parcel.pool, tuple(sources), ordinal))
            layer_bytes = 2 * len(blocks) * pool.layout.piece_bytes
            for layer in range(pool.layout.layers):
                pieces = await reader.readexactly(layer_bytes)
                pool.write(layer, blocks, np.frombuffer(pieces, np.uint8))
        finally:
            writer.close()

    def trim(self) -> None:
        """Nothing is kept open."""

    def close(self) -> None:
        """Nothing is kept open."""
