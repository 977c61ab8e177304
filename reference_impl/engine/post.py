"""How KV leaves an instance and reaches it: what its parcels say, who serves their KV, who pulls others'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from reference_impl.engine.crew import Crew
from reference_impl.engine.kv_wire import KvServer
from reference_impl.engine.progress import LayerProgress
from reference_impl.engine.pulling import FilePuller, Puller, WirePuller
from reference_impl.engine.step import Parcel


@dataclass(frozen=True)
class HandoverSettings:
    """How KV moves between instances; the same for all of a deployment."""

    transport: Literal["shm", "tcp"] = "shm"
    granularity: Literal["request", "layer"] = "request"
    """``layer``: a hand-over is announced while its last chunk is computed, and its layers follow as they are done."""
    timeout_s: float = 10.0
    """From the blocks on the decode side to the last byte, an announced one's computing included."""
    host: str = "127.0.0.1"
    """Where KV is served with transport ``tcp``."""


class Post:
    """One instance's part in hand-overs; outlives its crews."""

    def __init__(self, settings: HandoverSettings, holds: Callable[[int], bool], puller: Puller | None = None) -> None:
        self.settings = settings
        self.puller = puller or (FilePuller() if settings.transport == "shm" else WirePuller())
        self._server = KvServer(holds) if settings.transport == "tcp" else None
        self._progress: LayerProgress | None = None
        self._address = ""

    async def open(self) -> None:
        """Be reachable."""
        if self._server is not None:
            self._address = await self._server.start(self.settings.host)

    def show(self, crew: Crew) -> Parcel | None:
        """From here on KV comes out of this crew's pool; what all its parcels have in common."""
        pool = crew.pool
        if pool is None:
            return None
        layout = astuple(pool.layout)
        if self._server is None:
            return Parcel(0, 0, 0, (), f"shm:{pool.path}", pool.path.name, layout, progress=crew.progress)
        self._progress = LayerProgress(Path(crew.progress)) if crew.progress else None
        self._server.show(pool, self._progress)
        return Parcel(0, 0, 0, (), self._address, pool.path.name, layout)

    def hide(self) -> None:
        """The crew is going: what is being sent out of its pool is cut."""
        if self._server is not None:
            self._server.show(None, None)
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    async def close(self) -> None:
        self.hide()
        self.puller.close()
        if self._server is not None:
            await self._server.stop()
