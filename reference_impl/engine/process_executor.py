"""Iterations computed by a worker at the other end of a socket."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NamedTuple

from reference_impl.engine.api import ForwardBatch, Outcome, SamplingParams, WorkerDiedError
from reference_impl.engine.frames import Stream, receive_frame, send_frame
from reference_impl.engine.local_executor import Runner
from reference_impl.engine.progress import LayerProgress

Orders = tuple[tuple[int, SamplingParams | None], ...]
"""Requests to admit, with their parameters, and to forget (None), in order."""


class Breakdown(NamedTuple):
    """What a worker says before it gives up."""

    reason: str


class ProcessExecutor:
    """Launches send, outcomes are read; the socket is the queue of iterations under way."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._orders: list[tuple[int, SamplingParams | None]] = []
        """They go with the next iteration: by itself none of them is worth a message."""

    def admit(self, request_id: int, params: SamplingParams) -> None:
        self._orders.append((request_id, params))

    def forget(self, request_ids: Sequence[int]) -> None:
        self._orders += [(request_id, None) for request_id in request_ids]

    def launch(self, batch: ForwardBatch) -> None:
        send_frame(self._socket, (tuple(self._orders), batch))
        self._orders.clear()

    def collect(self) -> Outcome:
        answer = receive_frame(self._socket)
        if isinstance(answer, Breakdown):
            raise WorkerDiedError(answer.reason)
        assert isinstance(answer, Outcome)
        return answer

    def fileno(self) -> int | None:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


def serve_iterations(sock: Stream, runner: Runner, progress: LayerProgress | None = None) -> None:
    """The other end: run what comes until the socket is closed; ``progress`` is told which iteration begins."""
    while True:
        try:
            orders, batch = receive_frame(sock)
        except WorkerDiedError:
            return
        for request_id, params in orders:
            if params is None:
                runner.forget((request_id,))
            else:
                runner.admit(request_id, params)
        if progress is not None:
            progress.begin(batch.ordinal)
        try:
            outcome = runner.run(batch)
        except Exception as error:
            send_frame(sock, Breakdown(f"its worker broke down: {type(error).__name__}: {error}"))
            raise
        send_frame(sock, outcome)
