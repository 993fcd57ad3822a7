from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from duodaq.errors import ConfigError, PortBusyError, PortOpenError
from duodaq.model import PortDefinition
from duodaq.ports import MemoryTransport, SerialTransport, TcpTransport, make_transport
from duodaq.testing._contract_transport import Line, Listener, TransportContract, until


class PtyEnd:
    """The master of a pty, read by the running loop."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.path = os.ttyname(self.slave)
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.heard += os.read(self.master, 4096)

    def say(self, data: bytes) -> None:
        os.write(self.master, data)

    def hang_up(self) -> None:
        if self.master >= 0:
            asyncio.get_running_loop().remove_reader(self.master)
            os.close(self.master)
            os.close(self.slave)
            self.master = -1


@pytest.mark.serial
class TestSerialTransport(TransportContract):
    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        far = PtyEnd()
        yield Line(SerialTransport(far.path, baud=115200), far, SerialTransport("/dev/pts/no-such-line"))
        far.hang_up()

    async def test_a_port_that_another_program_holds_is_busy(self) -> None:
        async with self.line() as line:
            await line.transport.open(Listener(), 5)
            with pytest.raises(PortBusyError, match="another program"):
                await SerialTransport(line.transport.address).open(Listener(), 5)
            await line.transport.aclose()

    async def test_it_is_free_again_also_while_a_duplicate_of_its_descriptor_is_open(self) -> None:
        async with self.line() as line:
            await line.transport.open(Listener(), 5)
            duplicate = os.dup(line.transport.descriptor)
            await line.transport.aclose()
            await line.transport.open(Listener(), 5)
            await line.transport.aclose()
            os.close(duplicate)

    async def test_every_setting_of_a_serial_line_opens_on_a_pty(self) -> None:
        far = PtyEnd()
        line = SerialTransport(far.path, baud=19200, stopbits=2, rtscts=True, xonxoff=False)
        await line.open(Listener(), 5)
        await line.aclose()
        far.hang_up()

    async def test_a_line_held_by_xoff_takes_no_more_and_goes_on_after_xon(self) -> None:
        far, listener, freed = PtyEnd(), Listener(), asyncio.Event()
        line = SerialTransport(far.path, xonxoff=True)
        await line.open(listener, 5)
        far.say(b"\x13")
        await until(lambda: line.write_nowait(b"x" * 1000) < 1000)
        line.when_writable(freed.set)
        assert not freed.is_set()
        far.say(b"\x11")
        await asyncio.wait_for(freed.wait(), 5)
        await line.aclose(0.05)
        assert listener.heard == b""
        far.hang_up()

    async def test_without_pyserial_opening_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "serial", None)
        with pytest.raises(PortOpenError, match=r"pip install duodaq\[serial\]"):
            await SerialTransport("/dev/ttyS0").open(Listener(), 5)

    async def test_a_usb_adapter_that_is_not_there_does_not_open(self) -> None:
        with pytest.raises(PortOpenError, match="no such USB device"):
            await SerialTransport(usb="dead:beef:0").open(Listener(), 5)


class TcpEnd:
    """A listening socket and the connections to it."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while data := await reader.read(4096):
            self.heard += data
        writer.close()

    def say(self, data: bytes) -> None:
        async def when_connected() -> None:
            await until(lambda: bool(self.writers) and not self.writers[-1].is_closing())
            self.writers[-1].write(data)

        self.saying = asyncio.get_running_loop().create_task(when_connected())

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.close()


class TestTcpTransport(TransportContract):
    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        far = TcpEnd()
        far.server = await asyncio.start_server(far.serve, "127.0.0.1", 0)
        port = far.server.sockets[0].getsockname()[1]
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            nowhere = TcpTransport("127.0.0.1", unused.getsockname()[1])
            yield Line(TcpTransport.from_address(f"127.0.0.1:{port}"), far, nowhere)
        far.hang_up()
        far.server.close()
        await far.server.wait_closed()
        for writer in far.writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def test_its_end_is_heard_also_while_a_duplicate_of_its_descriptor_is_open(self) -> None:
        async with self.line() as line:
            await line.transport.open(Listener(), 5)
            await until(lambda: bool(line.far.writers))
            duplicate = os.dup(line.transport.descriptor)
            await line.transport.aclose()
            await until(line.far.writers[0].is_closing)
            os.close(duplicate)


class MemoryEnd:
    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.heard = bytearray()

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def transport_lost(self, cause: Exception | None) -> None:
        asyncio.get_running_loop().create_task(self.transport.open(self, 1))

    def say(self, data: bytes) -> None:
        async def when_open() -> None:
            await until(lambda: self.transport.is_open)
            self.transport.write_nowait(data)

        self.saying = asyncio.get_running_loop().create_task(when_open())

    def hang_up(self) -> None:
        self.transport.unplug()
        self.transport.replug()


class TestMemoryTransport(TransportContract):
    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        near, far = MemoryTransport.pair("bench")
        end = MemoryEnd(far)
        await far.open(end, 1)
        yield Line(near, end, MemoryTransport("loose end"))
        await far.aclose()


@pytest.mark.parametrize(
    "definition",
    [
        PortDefinition("p"),
        PortDefinition("p", serial={"path": "/dev/x"}, tcp="h:1"),
        PortDefinition("p", tcp="no port"),
        PortDefinition("p", serial={"baud": 9600}),
        PortDefinition("p", serial={"path": "/dev/x", "speed": 9600}),
    ],
)
def test_a_definition_that_leads_nowhere_is_a_config_error(definition: PortDefinition) -> None:
    with pytest.raises(ConfigError):
        make_transport(definition)
