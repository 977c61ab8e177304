"""Crews whose workers are threads, or nothing at all: no process, no torch, real KV files."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection
from itertools import count
from pathlib import Path

from reference_impl.core.instance import Instance
from reference_impl.engine.api import EngineError, Executor, ForwardBatch
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.local_executor import LocalExecutor, Runner
from reference_impl.engine.process_executor import ProcessExecutor, serve_iterations
from reference_impl.engine.progress import LayerProgress
from reference_impl.engine.shared_files import shared_path
from reference_impl.engine.testing.model import FAKE_VOCAB_TOKENS, fake_layout
from reference_impl.engine.testing.runner import FakeRunner

Serve = Callable[[socket.socket, Runner], None]
"""The worker's end of a socket: :func:`serve_iterations`, or one that misbehaves."""
_SERIAL = count()


class FakeCrew:
    """One instance's fake workers and their pool."""

    def __init__(self, pool: KvFile, progress: Path, eos_token_ids: frozenset[int]) -> None:
        self.pool = pool
        self.progress = str(progress)
        self.eos_token_ids = eos_token_ids
        self.vocab_tokens = FAKE_VOCAB_TOKENS
        self.executors: list[Executor] = []
        self._ends: list[socket.socket] = []

    def add(self, runner: Runner, serve: Serve | None) -> None:
        """A worker for the next lane: a thread that runs ``serve``; None: the forward runs where it is collected."""
        if serve is None:
            self.executors.append(LocalExecutor(runner))
            return
        ours, theirs = socket.socketpair()
        self.executors.append(ProcessExecutor(ours))
        self._ends.append(theirs)
        threading.Thread(target=_work, args=(serve, theirs, runner), daemon=True).start()

    def kill(self, place: int) -> None:
        """Cut one worker off in the middle of whatever it does, as a killed process would be."""
        self._ends[place].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for executor in self.executors:
            executor.close()
        self.pool.close()
        self.pool.path.unlink(missing_ok=True)
        Path(self.progress).unlink(missing_ok=True)


class FakeCrews:
    """Starts fake crews: a ``StartCrew``.

    With ``iteration_s`` (seconds, or a function of the batch) the workers are threads that take so long; without,
    iterations take no time and run in the event loop. ``serve`` makes them threads that misbehave.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        run: str = "test",
        iteration_s: float | Callable[[ForwardBatch], float] = 0.0,
        eos_token_ids: Collection[int] = (),
        serve: Serve | None = None,
    ) -> None:
        self.crews: list[FakeCrew] = []
        """All that were started, the latest last."""
        self._clock = clock
        self._run = run
        self._eos = frozenset(eos_token_ids)
        self._serve = serve or (serve_iterations if iteration_s else None)
        self._iteration_s = iteration_s

    async def __call__(self, instance: Instance) -> FakeCrew:
        name = f"{instance.instance_id}-{next(_SERIAL)}"
        layout = fake_layout(instance.spec.block_tokens)
        pool = KvFile.create(shared_path(self._run, f"{name}-kv"), layout, instance.spec.kv_blocks)
        progress = shared_path(self._run, f"{name}-progress")
        crew = FakeCrew(pool, progress, self._eos)
        self.crews.append(crew)
        for place in range(len(instance.lanes)):
            note = LayerProgress(progress, create=True) if place == 0 else None
            own = KvFile(pool.path, layout)
            crew.add(FakeRunner(own, self._clock, self._iteration_s, note), self._serve)
        return crew


def _work(serve: Serve, sock: socket.socket, runner: Runner) -> None:
    with sock:
        try:
            serve(sock, runner)
        except EngineError:
            return  # the other end is gone, or the batch was impossible; that the worker is gone says so
