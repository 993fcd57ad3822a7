"""The server behind the page: where it listens, whom it cuts off, and what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from duodaq.clock import Deadline, pause
from duodaq.errors import PortOpenError
from duodaq.model import WebDefinition

PageServer: Any = pytest.importorskip("duodaq.web").PageServer
server: Any = pytest.importorskip("duodaq.web._server")


@contextlib.asynccontextmanager
async def silent_connections(client: Any, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    opened = [await asyncio.open_connection(client.base_url.host, client.base_url.port) for _ in range(count)]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other end has closed it; waits for that."""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            return await reader.read() == b""
    return True


async def test_connections_are_few(serve_rails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    async with serve_rails() as (client, _), silent_connections(client, 4) as readers:
        assert await ended(readers[3])
        assert not any(reader.at_eof() for reader in readers[:3])


async def test_connections_that_say_nothing_are_cut_off(serve_rails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.1)
    async with serve_rails() as (client, _), silent_connections(client, 1) as readers:
        assert await ended(readers[0])


async def say_on(here: socket.socket) -> None:
    """Send a byte now and then, for as long as there is somebody at the other end, or for ten seconds."""
    deadline = Deadline(10)
    while not deadline.passed:
        here.send(b"G")
        await pause(0.02)


def ask_for(client: Any, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {client.base_url.netloc.decode()}\r\n\r\n".encode()


async def test_half_a_second_request_keeps_no_connection(serve_rails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.2)
    async with serve_rails() as (client, _):
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(ask_for(client, "/api/session"))
        await reader.readuntil(b"}")
        writer.write(b"G")
        assert await ended(reader)
        writer.close()


async def test_an_answer_that_is_not_taken_keeps_no_connection(
    serve_rails: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNREAD_S", 0.2)
    async with serve_rails() as (client, _):
        here = socket.create_connection((client.base_url.host, client.base_url.port))
        with here:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            here.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(here, ask_for(client, "/vendor/Arrow.es2015.min.js") * 60)
            with pytest.raises(ConnectionError):
                await say_on(here)


async def test_one_machine_takes_no_more_than_its_part(serve_rails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_OF_ONE_MACHINE", 2)
    async with serve_rails() as (client, _), silent_connections(client, 3) as readers:
        assert await ended(readers[2])
        assert not any(reader.at_eof() for reader in readers[:2])


async def test_a_port_that_is_taken_is_said(serve_rails: Any) -> None:
    async with serve_rails() as (client, lab):
        with pytest.raises(PortOpenError, match="cannot be served at 127"):
            await PageServer(lab, WebDefinition(port=client.base_url.port)).start()


async def test_two_pages_find_a_free_port_each(serve_rails: Any) -> None:
    here = WebDefinition()
    async with serve_rails() as (_, lab), PageServer(lab, here) as one, PageServer(lab, here) as other:
        assert one.address != other.address


async def test_schema_is_served_and_names_every_route(serve_rails: Any) -> None:
    async with serve_rails() as (client, _):
        schema = (await client.get("/api/openapi.json")).json()
        assert {"/api/stop-all", "/api/instruments/{instrument}/command", "/api/runs/{run}"} <= set(schema["paths"])
        for path, methods in schema["paths"].items():
            for method, told in methods.items():
                assert told.get("description"), f"{method} {path} says nothing of itself"


async def test_status_tells_where_the_page_is_while_it_is_served(serve_rails: Any) -> None:
    async with serve_rails() as (client, lab):
        assert (await client.get("/api/status")).json()["page"] == lab.page == str(client.base_url)
    assert lab.page is None
