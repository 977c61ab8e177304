"""The launcher: one process per host that has imported torch and forks workers, each within a fraction of a second.

Whoever wants a worker connects to its socket and sends a ``WorkerSpec``; the connection then is that worker's. The
launcher outlives those who asked, and ends with its owner: when the pipe on ``--owner`` is closed.

    python -m reference_impl.engine.launcher --listen FD --owner FD
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket

_FAMILIES = ("llama", "qwen2", "qwen3", "mistral")
"""Model families whose code is imported before the first worker asks for it."""


def main() -> None:
    """Fork workers until the owner is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", type=int, required=True, help="descriptor of a listening unix socket")
    parser.add_argument("--owner", type=int, required=True, help="read end of a pipe that the owner holds open")
    arguments = parser.parse_args()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers that end are nobody's business here
    preload()
    fork_on_request(socket.socket(fileno=arguments.listen), arguments.owner)


def preload() -> None:
    """Import what every worker needs. No torch operation runs here: threads do not survive a fork."""
    import torch

    torch.set_num_threads(1)
    for name in ("reference_impl.engine.runner", "reference_impl.engine.weights_writing"):
        importlib.import_module(name)
    for family in _FAMILIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    gc.collect()
    gc.freeze()  # else the first collection in a worker would copy all of it


def fork_on_request(listener: socket.socket, owner: int) -> None:
    """A worker for every connection, until ``owner`` is readable: nobody writes to it, so it was closed."""
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(owner, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == owner:
                    return
                _fork(listener, owner)


def _fork(listener: socket.socket, owner: int) -> None:
    connection, _ = listener.accept()
    if os.fork():
        connection.close()
        return
    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        os.close(owner)
        from reference_impl.engine.worker import work

        code = work(connection)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
