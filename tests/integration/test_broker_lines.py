"""The broker on real lines that come and go: a pty behind a link, as udev makes them, and a TCP device."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from collections.abc import Callable
from pathlib import Path

import pytest

from duodaq import clock
from duodaq.errors import PortLostError, PortOpenError, PortTimeoutError
from duodaq.model import PortDefinition
from duodaq.ports import Broker, PortState
from duodaq.testing._scripted_port import ScriptedCodec


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(8):
        while not condition():
            await clock.pause(0.005)


class PtyLine:
    """``X?`` → ``X=ok`` on a pty of the running loop, reached through a link; can be pulled out and put in again."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.held = b""
        self.plug_in()

    def plug_in(self) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.link.symlink_to(os.ttyname(self.slave))
        asyncio.get_running_loop().add_reader(self.master, self.read)

    def read(self) -> None:
        with contextlib.suppress(OSError):
            self.held += os.read(self.master, 4096)
        *lines, self.held = self.held.split(b"\n")
        for line in lines:
            if line.endswith(b"?"):
                os.write(self.master, line[:-1] + b"=ok\n")

    def pull_out(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)
        self.link.unlink()
        os.close(self.master)
        os.close(self.slave)


@pytest.mark.serial
async def test_a_serial_line_that_is_pulled_out_comes_back_under_its_name(tmp_path: Path) -> None:
    line, broker = PtyLine(tmp_path / "stage"), Broker()
    definition = PortDefinition("stage", serial={"path": str(line.link), "baud": 19200, "rtscts": True})
    port = await broker.add(definition, ScriptedCodec())
    await broker.open("stage")
    for _ in range(3):
        assert await port.exchange(b"A?\n", holder="a") == b"A=ok\n"
        line.pull_out()
        await until(lambda: broker.status()[0].state is PortState.LOST)
        with pytest.raises(PortLostError, match="reconnects by itself"):
            await port.exchange(b"A?\n", holder="a")
        line.plug_in()
        await until(lambda: broker.status()[0].state is PortState.OPEN)
    assert broker.status()[0].reconnects == 3
    await broker.aclose()
    line.pull_out()


@pytest.mark.serial
async def test_a_line_that_is_not_there_says_so_and_can_be_opened_later(tmp_path: Path) -> None:
    broker = Broker()
    path = tmp_path / "stage"
    port = await broker.add(PortDefinition("stage", serial={"path": str(path)}), ScriptedCodec())
    with pytest.raises(PortOpenError, match="there is no such device") as caught:
        await broker.open("stage")
    assert caught.value.port
    line = PtyLine(path)
    await broker.open("stage")
    assert await port.exchange(b"A?\n", holder="a") == b"A=ok\n"
    await broker.aclose()
    line.pull_out()


@pytest.mark.serial
async def test_a_command_that_xoff_holds_back_is_not_carried_out_later(tmp_path: Path) -> None:
    line, broker = PtyLine(tmp_path / "stage"), Broker()
    definition = PortDefinition("stage", serial={"path": str(line.link), "xonxoff": True}, timeout_s=0.1)
    port = await broker.add(definition, ScriptedCodec(longest_reply_s=0.1))
    await broker.open("stage")
    os.write(line.master, b"\x13")
    await clock.pause(0.05)
    with pytest.raises(PortTimeoutError):
        await port.exchange(b"BEFORE?\n", holder="a")
    os.write(line.master, b"\x11")
    assert await port.exchange(b"AFTER?\n", holder="a") == b"AFTER=ok\n"
    await broker.aclose()
    line.pull_out()


async def test_a_tcp_device_that_restarts_is_found_again() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(line.replace(b"?", b"=ok"))
        writer.close()

    async def stop(server: asyncio.Server) -> None:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, number = server.sockets[0].getsockname()
    broker = Broker()
    port = await broker.add(PortDefinition("dmm", tcp=f"{host}:{number}"), ScriptedCodec())
    await broker.open("dmm")
    assert await port.exchange(b"A?\n", holder="a") == b"A=ok\n"
    await stop(server)
    await until(lambda: broker.status()[0].state is PortState.LOST)
    server = await asyncio.start_server(serve, host, number)
    await until(lambda: broker.status()[0].state is PortState.OPEN)
    assert await port.exchange(b"B?\n", holder="a") == b"B=ok\n"
    await broker.aclose()
    await stop(server)
