"""Several streams read as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.http.gateway import Delta, GenerateStream

_Item = tuple[int, Delta] | ServingError | None


async def merged(streams: Sequence[GenerateStream]) -> AsyncIterator[tuple[int, Delta]]:
    """(place, delta) as they come. The first error of any of them is raised."""
    queue: asyncio.Queue[_Item] = asyncio.Queue()
    readers = [asyncio.create_task(_read(place, stream, queue)) for place, stream in enumerate(streams)]
    running = len(readers)
    try:
        while running:
            item = await queue.get()
            if isinstance(item, ServingError):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for reader in readers:
            reader.cancel()


async def _read(place: int, stream: GenerateStream, queue: asyncio.Queue[_Item]) -> None:
    try:
        async for delta in stream:
            queue.put_nowait((place, delta))
    except ServingError as error:
        queue.put_nowait(error)
    else:
        queue.put_nowait(None)
