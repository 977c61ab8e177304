from __future__ import annotations

import asyncio
import socket

import pytest
from fastapi import FastAPI
from starlette.requests import Request

from reference_impl.serve.http_server import HttpServer, bind


def app(name: str) -> FastAPI:
    found = FastAPI()

    @found.get("/name")
    async def say() -> str:
        return name

    return found


async def name_at(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /name HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.decode().rpartition('"')[0].rpartition('"')[2]


def test_it_serves_until_it_is_stopped() -> None:
    async def check() -> None:
        server = HttpServer(app("one"), "127.0.0.1", 0, shared=False)
        assert not server.running
        await server.start()
        assert (server.running, await name_at(server.port)) == (True, "one")
        await server.stop()
        assert not server.running
        with pytest.raises(OSError, match="Connect call failed"):
            await name_at(server.port)

    asyncio.run(check())


def test_the_next_one_listens_at_the_address_of_one_that_left_clients_behind() -> None:
    async def check() -> None:
        first = HttpServer(app("one"), "127.0.0.1", 0, shared=False)
        await first.start()
        _, writer = await asyncio.open_connection("127.0.0.1", first.port)
        await first.stop()  # the server closes first: its end of the connection lingers in TIME_WAIT
        second = HttpServer(app("two"), "127.0.0.1", first.port, shared=False)
        await second.start()
        assert await name_at(first.port) == "two"
        writer.close()
        await second.stop()

    asyncio.run(check())


def test_several_share_one_address() -> None:
    async def check() -> None:
        servers = [HttpServer(app("one"), "127.0.0.1", 0, shared=True)]
        servers.append(HttpServer(app("two"), "127.0.0.1", servers[0].port, shared=True))
        for server in servers:
            await server.start()
        names = {await name_at(servers[0].port) for _ in range(64)}
        assert names == {"one", "two"}
        for server in servers:
            await server.stop()

    asyncio.run(check())


def test_each_of_several_also_listens_alone() -> None:
    async def check() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            own = free.getsockname()[1]
        servers = [HttpServer(app("one"), "127.0.0.1", 0, shared=True)]
        servers.append(HttpServer(app("two"), "127.0.0.1", servers[0].port, shared=True, own_port=own))
        for server in servers:
            await server.start()
        assert {await name_at(own) for _ in range(16)} == {"two"}
        for server in servers:
            await server.stop()
        with pytest.raises(OSError, match="Connect call failed"):
            await name_at(own)

    asyncio.run(check())


def test_a_call_is_known_by_the_port_that_it_came_to() -> None:
    async def check() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            own = free.getsockname()[1]
        asked = FastAPI()

        @asked.get("/name")
        async def say(request: Request) -> str:
            return str(request.scope["server"][1])

        server = HttpServer(asked, "127.0.0.1", 0, shared=True, own_port=own)
        await server.start()
        assert [await name_at(port) for port in (server.port, own)] == [str(server.port), str(own)]
        await server.stop()

    asyncio.run(check())


@pytest.mark.parametrize("shared", [False, True])
def test_an_address_that_a_stranger_has_is_refused(shared: bool) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(OSError, match="already in use"):
            bind("127.0.0.1", stranger.getsockname()[1], shared=shared)
