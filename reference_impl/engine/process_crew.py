"""Crews of real workers: forked by the host's launcher, one for each lane, over a KV pool in shared memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from reference_impl.core.instance import Instance
from reference_impl.engine.api import EngineError, WorkerDiedError
from reference_impl.engine.frames import frame, receive_frame
from reference_impl.engine.kv_cache import KvLayout
from reference_impl.engine.kv_file import KvFile
from reference_impl.engine.model_facts import ModelFacts, model_folder, read_facts
from reference_impl.engine.process_executor import Breakdown, ProcessExecutor
from reference_impl.engine.progress import LayerProgress
from reference_impl.engine.shared_files import shared_path, sweep
from reference_impl.engine.weights import ModelSource
from reference_impl.engine.worker import Ready, WorkerSpec


@dataclass(frozen=True)
class WorkerSettings:
    """What the workers of an instance run, and on what."""

    source: ModelSource
    weights_folder: Path
    """Where drawn or converted weights are kept; the same for all instances of a host."""
    epoch_s: float
    """``time.monotonic()`` at the run's second 0."""
    cores: tuple[int, ...] | None = None
    share: float | None = None
    """The part of one core that each lane may use; None: as much as it gets."""
    steady: bool = False
    """The share is one of a standard core (``yardstick``)."""
    log_folder: Path | None = None
    start_timeout_s: float = 120.0
    """Torch may have to be imported first, and weights be drawn."""


class ProcessCrew:
    """One instance's workers and their memory."""

    def __init__(self, facts: ModelFacts, files: _Files | None) -> None:
        self.pool: KvFile | None = None
        self.progress = str(files.progress) if files is not None else ""
        self.eos_token_ids = facts.eos_token_ids
        self.vocab_tokens = facts.vocab_tokens
        self.executors: list[ProcessExecutor] = []
        self.pids: list[int] = []
        self._handles: list[int] = []
        self._files = files

    def add(self, sock: socket.socket, pid: int) -> None:
        """A worker that is ready; they come in the order of the instance's lanes."""
        self.executors.append(ProcessExecutor(sock))
        self.pids.append(pid)
        with contextlib.suppress(OSError, AttributeError):  # gone already, or no Linux
            self._handles.append(os.pidfd_open(pid))

    def close(self) -> None:
        for executor in self.executors:
            executor.close()  # a worker that can still notice ends by this
        for handle in self._handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        self._handles.clear()
        if self.pool is not None:
            self.pool.close()
            self.pool = None
        if self._files is not None:
            self._files.remove()


class _Files:
    """What an instance's workers share, under names that were never used before, nor can be guessed.

    Others may still map a predecessor's pool, and who asks for KV over TCP has to name the pool that it is in.
    """

    def __init__(self, run: str, instance_id: int) -> None:
        self._run = run
        self._name = f"{instance_id}-{secrets.token_hex(8)}"
        self.pool = self.path("kv")
        self.progress = self.path("progress")

    def path(self, what: str) -> Path:
        """Where one of them lies."""
        return shared_path(self._run, f"{self._name}-{what}")

    def remove(self) -> None:
        """Take away their names; the memory goes with the last who maps it."""
        sweep(self._run, self._name)


class ProcessCrews:
    """Starts crews of real workers: a ``StartCrew``."""

    def __init__(self, launcher: Path, run: str, settings: WorkerSettings) -> None:
        """``launcher``: the socket of this host's launcher; ``run``: the run that its files belong to."""
        self._launcher = launcher
        self._run = run
        self._settings = settings

    async def __call__(self, instance: Instance) -> ProcessCrew:
        source = self._settings.source
        facts = read_facts(model_folder(source.path))
        layout = facts.kv_layout(instance.spec.block_tokens, source.dtype)
        sweep(self._run, f"{instance.instance_id}-")  # a predecessor may have been killed
        files = _Files(self._run, instance.instance_id) if source.device == "cpu" else None
        if files is None and instance.spec.role != "colocated":
            raise EngineError(
                f"a {instance.spec.role} instance on {source.device}; allowed there: colocated (its KV lies in the"
                " device's memory, where no other worker can reach it)"
            )
        crew = ProcessCrew(facts, files)
        try:
            if files is not None:
                crew.pool = await asyncio.to_thread(KvFile.create, files.pool, layout, instance.spec.kv_blocks)
                LayerProgress(files.progress, create=True).close()
            for place in range(len(instance.lanes)):
                crew.add(*await self._start(self._worker(instance, place, layout, files)))
        except BaseException:
            crew.close()
            raise
        return crew

    def _worker(self, instance: Instance, place: int, layout: KvLayout, files: _Files | None) -> WorkerSpec:
        settings = self._settings
        kind = instance.lanes[place].kind
        log = settings.log_folder / f"worker-{instance.instance_id}-{kind}.log" if settings.log_folder else None
        return WorkerSpec(
            settings.source,
            settings.weights_folder,
            files.pool if files is not None else None,
            layout,
            instance.spec.kv_blocks,
            settings.epoch_s,
            progress=files.progress if files is not None and place == 0 else None,
            share_file=files.path(f"share-{kind}") if files is not None and settings.share is not None else None,
            share=settings.share,
            steady=settings.steady,
            cores=settings.cores,
            log=log,
        )

    async def _start(self, spec: WorkerSpec) -> tuple[socket.socket, int]:
        """Ask the launcher; its socket and process id once it has run a forward. Raises EngineError."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await loop.sock_connect(sock, str(self._launcher))
                await loop.sock_sendall(sock, frame(spec))
                await _readable(sock)
            sock.setblocking(True)
            answer = receive_frame(sock)
            if isinstance(answer, Breakdown):
                raise EngineError(answer.reason)
            assert isinstance(answer, Ready)
        except (OSError, WorkerDiedError) as error:  # a TimeoutError is an OSError
            sock.close()
            raise EngineError(f"no worker came from {self._launcher}: {error or 'timed out'}; see its log") from error
        except BaseException:
            sock.close()
            raise
        return sock, answer.pid


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(sock, there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(sock)
