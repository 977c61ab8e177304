"""What the two ends of a hand-over over TCP say to each other.

The decode side sends one question, a line of JSON. The source answers with a line of JSON, ``{}`` or ``{"error":
...}``, and then with the layers' pieces, one layer after the other as they are ready, without anything in between.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import NamedTuple

from reference_impl.engine.api import EngineError
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.progress import LayerProgress

_POLL_S = 0.0005
_LINE_BYTES = 1 << 24


class Question(NamedTuple):
    """Which blocks of whose KV."""

    request_id: int
    pool: str
    blocks: tuple[int, ...]
    ordinal: int | None
    """The iteration to follow layer by layer; None: everything is written."""


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: Question) -> None:
    """Put the question; the pieces follow. Raises EngineError where the source refuses."""
    writer.write(json.dumps(question).encode() + b"\n")
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EngineError("the source of a hand-over closed the connection; it is gone or going")
    answer = json.loads(line)
    if "error" in answer:
        raise EngineError(f"the source of a hand-over refused: {answer['error']}")


class KvServer:
    """Serves the KV of one instance's handed-over requests."""

    def __init__(self, holds: Callable[[int], bool]) -> None:
        self._holds = holds
        self._pool: KvFile | None = None
        self._progress: LayerProgress | None = None
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, host: str) -> str:
        """Listen on a free port; the address for parcels."""
        self._server = await asyncio.start_server(self._serve, host, 0, limit=_LINE_BYTES)
        port = self._server.sockets[0].getsockname()[1]
        return f"tcp:{host}:{port}"

    def show(self, pool: KvFile | None, progress: LayerProgress | None) -> None:
        """From here on serve this pool only; what is being sent of another one is cut."""
        self._pool, self._progress = pool, progress
        for writer in self._open:
            writer.transport.abort()

    async def stop(self) -> None:
        self.show(None, None)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self._answer(Question(*json.loads(await reader.readline())), reader, writer)
        except (OSError, ValueError, TypeError, EngineError):
            pass  # whoever asked is gone, or is no instance of ours; it notices that the connection is closed
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, question: Question, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pool = self._pool
        error = self._refusal(question, pool)
        writer.write(json.dumps({"error": error} if error else {}).encode() + b"\n")
        if error or pool is None:
            return
        for layer in range(pool.layout.layers):
            while question.ordinal is not None and not self._written(question.ordinal, layer + 1):
                if reader.at_eof() or writer.is_closing():
                    return
                await asyncio.sleep(_POLL_S)
            writer.write(pool.read(layer, question.blocks).data.cast("B"))
            await writer.drain()

    def _written(self, ordinal: int, layers: int) -> bool:
        return self._progress is not None and self._progress.reached(ordinal, layers)

    def _refusal(self, question: Question, pool: KvFile | None) -> str | None:
        if pool is None or question.pool != pool.path.name:
            return f"the pool {question.pool} is gone"
        if not self._holds(question.request_id):
            return f"request {question.request_id} is not handed over here, or not any more"
        return None
