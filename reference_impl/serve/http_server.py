"""The front door's HTTP server, on a socket of our own.

Ray Serve's ingress binds its ports without SO_REUSEADDR and drops a port that it could not bind for good, so a front
door that is replaced would come back at another address; and its ports cannot be shared. Here several front doors
listen at one address, and one that was killed is back at the same. Each of several also listens at a port of its own,
for what one front door cannot answer for the others: its metrics and its jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

_BACKLOG = 2048
_LOOK_S = 0.01


class HttpServer:
    """Serves an app until it is stopped. Sockets are bound at once: an address that is taken shows first of all."""

    def __init__(self, app: FastAPI, host: str, port: int, *, shared: bool, own_port: int | None = None) -> None:
        """``shared``: other front doors listen at the same address; at ``own_port`` none does. Raises OSError."""
        self._sockets = [bind(host, port, shared=shared)]
        if own_port is not None:
            self._sockets.append(bind(host, own_port, shared=shared))  # a killed predecessor may not be quite gone
        self.port: int = self._sockets[0].getsockname()[1]
        config = uvicorn.Config(
            app,
            backlog=_BACKLOG,
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return once connections are accepted."""
        self._serving = asyncio.create_task(self._server.serve(sockets=self._sockets))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise RuntimeError("the HTTP server ended while it started")
            await asyncio.sleep(_LOOK_S)

    @property
    def running(self) -> bool:
        """Whether connections are accepted."""
        return self._serving is not None and not self._serving.done()

    async def stop(self) -> None:
        """Accept no more; what is still under way after a second is cut."""
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait([self._serving])
        for one in self._sockets:
            one.close()


class _Server(uvicorn.Server):
    """Signals are the host's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def own_port(port: int, front_door: int) -> int:
    """Where one of several front doors listens alone."""
    return port + 1 + front_door


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket bound to an address that a killed predecessor may just have had. Raises OSError."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
