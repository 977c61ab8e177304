"""How far a lane's forward has come, layer by layer: one number in a file that other processes map."""

from __future__ import annotations

import mmap
from pathlib import Path

from reference_impl.engine.api import EngineError

_LAYERS = 1 << 16
"""The number is ordinal * this + layers written, so it only ever grows."""


class LayerProgress:
    """The worker notes each layer whose KV is written; whoever pulls KV looks."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        try:
            if create:
                path.write_bytes(bytes(8))
            with path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), 8)
        except (OSError, ValueError) as error:
            raise EngineError(f"the progress file {path} cannot be opened: {error}; its owner is gone") from error
        self._cell = memoryview(self._map).cast("q")
        self._ordinal = 0

    def begin(self, ordinal: int) -> None:
        """The worker turns to iteration ``ordinal``."""
        self._ordinal = ordinal

    def wrote(self, layer: int) -> None:
        """Its KV of ``layer`` (counted from 0) and of those below is written."""
        self._cell[0] = self._ordinal * _LAYERS + layer + 1

    def reached(self, ordinal: int, layers: int) -> bool:
        """Whether iteration ``ordinal`` has written its first ``layers`` layers."""
        return self._cell[0] >= ordinal * _LAYERS + layers

    def close(self) -> None:
        self._cell.release()
        self._map.close()
