"""Things that go wrong at the seams, from a seed: workers, hand-overs and memory that misbehave now and then."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reference_impl.core.instance import Instance
from reference_impl.core.sequence import Sequence as CoreSequence
from reference_impl.engine.api import EngineError
from reference_impl.engine.crew import Crew, StartCrew
from reference_impl.engine.frames import Stream
from reference_impl.engine.kv_cache import KvLayout
from reference_impl.engine.local_executor import Runner
from reference_impl.engine.process_executor import serve_iterations
from reference_impl.engine.pulling import Puller, Target
from reference_impl.engine.step import Parcel

Fault = Literal["drop", "delay", "cut", "duplicate", "refuse"]
_DELAY_S = 0.02


class Faults:
    """When what goes wrong: each time that it is asked with a chance of ``rate``, ``limit`` times in all."""

    def __init__(self, seed: int, rate: float = 0.05, limit: int = 1 << 30) -> None:
        self.counts: Counter[str] = Counter()
        """How often which fault was made, as ``seam fault``."""
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self.begin(rate, limit)

    def begin(self, rate: float, limit: int) -> None:
        """From here on with this chance, so many times."""
        self._rate = rate
        self.left = limit

    def choose(self, seam: str, *faults: Fault) -> Fault | None:
        """The fault to make now; None: none."""
        with self._lock:
            if not self.left or self._rng.random() >= self._rate:
                return None
            fault = self._rng.choice(faults)
            self.left -= 1
            self.counts[f"{seam} {fault}"] += 1
            return fault


class FaultyWorkers:
    """Answers of workers that are lost, late, cut in the middle or doubled: ``serve=`` of :class:`FakeCrews`."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def __call__(self, sock: socket.socket, runner: Runner) -> None:
        serve_iterations(_FaultyStream(sock, self._faults), runner)


class _FaultyStream:
    def __init__(self, sock: Stream, faults: Faults) -> None:
        self._sock = sock
        self._faults = faults

    def recv(self, size: int, /) -> bytes:
        return self._sock.recv(size)

    def sendall(self, data: bytes, /) -> None:
        fault = self._faults.choose("worker", "drop", "delay", "cut", "duplicate")
        if fault == "cut":
            self._sock.sendall(data[: len(data) // 2])
            raise ConnectionResetError("cut by a fault")
        if fault == "delay":
            threading.Event().wait(_DELAY_S)
        if fault != "drop":
            self._sock.sendall(data * (2 if fault == "duplicate" else 1))


class FaultyPuller:
    """Hand-overs that hang, come late, are cut between two layers, done twice, or refused."""

    def __init__(self, inner: Puller, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def pull(self, parcel: Parcel, sources: Sequence[int], pool: Target, blocks: Sequence[int]) -> None:
        fault = self._faults.choose("hand-over", "drop", "delay", "cut", "duplicate", "refuse")
        if fault == "refuse":
            raise EngineError("refused by a fault")
        if fault == "drop":
            await asyncio.Event().wait()
        if fault == "delay":
            await asyncio.sleep(_DELAY_S)
        into = _CutPool(pool) if fault == "cut" else pool
        await self._inner.pull(parcel, sources, into, blocks)
        if fault == "duplicate":
            await self._inner.pull(parcel, sources, pool, blocks)

    def trim(self) -> None:
        self._inner.trim()

    def close(self) -> None:
        self._inner.close()


class _CutPool:
    """Takes one layer, and then the connection is gone."""

    def __init__(self, pool: Target) -> None:
        self._pool = pool
        self._written = False

    @property
    def layout(self) -> KvLayout:
        return self._pool.layout

    def write(self, layer: int, blocks: Sequence[int], pieces: NDArray[np.uint8]) -> None:
        if self._written:
            raise ConnectionResetError("cut by a fault")
        self._pool.write(layer, blocks, pieces)
        self._written = True


def refusing(faults: Faults) -> type[Instance]:
    """Instances that say now and then that there is no room for a hand-over."""

    class Refusing(Instance):
        def reserve(self, sequence: CoreSequence) -> bool:
            return faults.choose("blocks", "refuse") is None and super().reserve(sequence)

    return Refusing


def without_memory(start_crew: StartCrew, faults: Faults) -> StartCrew:
    """Crews whose memory cannot be had now and then."""

    async def start(instance: Instance) -> Crew:
        if faults.choose("memory", "refuse"):
            raise EngineError("no memory, by a fault")
        return await start_crew(instance)

    return start


class BlockThief:
    """Somebody else takes KV blocks of an instance for a while."""

    def __init__(self, instance: Instance, faults: Faults) -> None:
        self._pool = instance.pool
        self._faults = faults
        self._taken = 0

    def act(self, blocks: int) -> None:
        """Take up to so many of those that are free, or give back what was taken before."""
        if self._taken:
            self.give_back()
        elif self._faults.choose("blocks", "refuse"):
            count = min(blocks, self._pool.available)
            if self._pool.reserve(count):
                self._taken = count

    def give_back(self) -> None:
        """What it has."""
        self._pool.release([], self._taken)
        self._taken = 0
