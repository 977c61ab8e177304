"""A worker: the process that computes one lane's iterations. It is forked with torch imported, see ``launcher.py``."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reference_impl.engine.api import ChunkRow, DecodeRow, EngineError, ForwardBatch, SamplingParams, WorkerDiedError
from reference_impl.engine.frames import receive_frame, send_frame
from reference_impl.engine.kv_cache import KvLayout, KvPool
from reference_impl.engine.local_executor import Runner
from reference_impl.engine.process_executor import Breakdown, serve_iterations
from reference_impl.engine.progress import LayerProgress
from reference_impl.engine.share import Share
from reference_impl.engine.weights import ModelSource, ensure_weights

if TYPE_CHECKING:
    from reference_impl.engine.runner import Runner as ModelRunner

_WARM_UP = -1
"""A request id that no request has."""
_WARM_UP_TOKENS = (512, 128, 16, 512)
_WARM_UP_DECODES = 4


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is to be."""

    source: ModelSource
    weights_folder: Path
    """Where drawn or converted weights are kept."""
    pool: Path | None
    """Its instance's KV pool; None: memory of its own, on the device."""
    layout: KvLayout
    blocks: int
    epoch_s: float
    """``time.monotonic()`` at the run's second 0."""
    progress: Path | None = None
    """Where it notes the layers that it has written."""
    share_file: Path | None = None
    share: float | None = None
    """The part of one core that it may use; None: as much as it gets."""
    steady: bool = False
    """The share is one of a standard core, so that a core that changes its speed is no other device."""
    cores: tuple[int, ...] | None = None
    """Those that it keeps to."""
    log: Path | None = None
    """Where its stdout and stderr go."""


class Ready(NamedTuple):
    """A worker's first word."""

    pid: int


def work(sock: socket.socket) -> int:
    """Be the worker that comes as the first message; the exit code."""
    spec = receive_frame(sock)
    assert isinstance(spec, WorkerSpec)
    try:
        _settle(spec)
        die_with(sock)
        progress = LayerProgress(spec.progress) if spec.progress is not None else None
        runner = _runner(spec, progress)
        room_tokens = min(spec.blocks * spec.layout.block_tokens, runner.facts.max_context_tokens)
        warm_up(runner, spec.layout.block_tokens, room_tokens)
        send_frame(sock, Ready(os.getpid()))
        serve_iterations(sock, runner, progress)
    except WorkerDiedError:
        return 0  # nobody listens any more
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the instance and into the log
        traceback.print_exc()
        return _complain(sock, error)
    return 0


def warm_up(runner: Runner, block_tokens: int, room_tokens: int) -> None:
    """Run prompts of several sizes and decodes, so that the first real ones are not slower than the others: a new size
    has its kernels made, and memory is touched for the first time. Writes KV from block 0 on, ``room_tokens`` at most.
    """
    runner.admit(_WARM_UP, SamplingParams(max_tokens=room_tokens, temperature=0.0))
    for wanted in _WARM_UP_TOKENS:
        tokens = min(wanted, max(1, room_tokens - _WARM_UP_DECODES))
        table = list(range(-(-min(room_tokens, tokens + _WARM_UP_DECODES) // block_tokens)))
        runner.run(ForwardBatch(0, (ChunkRow(_WARM_UP, [0] * tokens, 0, table, True),), ()))
        for position in range(tokens, min(room_tokens, tokens + _WARM_UP_DECODES)):
            runner.run(ForwardBatch(0, (), (DecodeRow(_WARM_UP, None, position, table),)))
    runner.forget([_WARM_UP])


def _settle(spec: WorkerSpec) -> None:
    if spec.log is not None:
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.close(descriptor)
    if spec.cores is not None and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, spec.cores)
        except OSError as error:
            allowed = sorted(os.sched_getaffinity(0))
            raise EngineError(f"a worker cannot keep to cores {spec.cores} ({error}); allowed: {allowed}") from error


def die_with(sock: socket.socket) -> None:
    """End this process as soon as its instance is gone, also in the middle of a forward."""
    if not hasattr(select, "POLLRDHUP"):
        return  # then it ends when it has something to say, or waits for more

    def watch() -> None:  # holds the socket: collected while the process computes, its descriptor would be no one's
        poll = select.poll()
        poll.register(sock, select.POLLRDHUP)
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _runner(spec: WorkerSpec, progress: LayerProgress | None) -> ModelRunner:
    from reference_impl.engine.device.choice import check_device
    from reference_impl.engine.runner import Runner as ModelRunner

    check_device(spec.source.device)
    if spec.pool is None:
        pool = KvPool.create(None, spec.layout, spec.blocks, spec.source.device)
    else:
        pool = KvPool.open(spec.pool, spec.layout, spec.blocks)
    return ModelRunner(
        ensure_weights(spec.source, spec.weights_folder),
        spec.source,
        pool,
        share=Share(spec.share_file, spec.share) if spec.share_file is not None else None,
        steady=spec.steady,
        on_layer=progress.wrote if progress is not None else None,
        clock=lambda: time.monotonic() - spec.epoch_s,
    )


def _complain(sock: socket.socket, error: Exception) -> int:
    what = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
    with contextlib.suppress(WorkerDiedError):
        send_frame(sock, Breakdown(f"a worker could not start: {what}"))
    return 1
