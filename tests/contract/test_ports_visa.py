"""The promise of a transport, kept through pyvisa-py and a port worker, by HiSLIP and by VXI-11."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from duodaq.model import VisaDefinition
from duodaq.ports import PortWorkers, VisaTransport
from duodaq.sim.lan import HislipEndpoint, Vxi11Endpoint
from duodaq.testing._contract_transport import Line, Listener, TransportContract, until
from duodaq.workers import spawn_port_worker

pytest.importorskip("pyvisa_py")


class LanEnd:
    """A server of HiSLIP or VXI-11, on the running loop, with no instrument behind it."""

    def __init__(self, endpoint: HislipEndpoint | Vxi11Endpoint) -> None:
        self.heard = bytearray()
        self.endpoint = endpoint
        self.clients: list[int] = []
        endpoint.on_open = self.clients.append
        endpoint.on_data = lambda _, data: self.heard.extend(data[:-1])  # without the newline that stands for END
        endpoint.on_close = self.clients.remove
        endpoint.open()

    def say(self, data: bytes) -> None:
        self.endpoint.send(self.clients[-1], data)

    def hang_up(self) -> None:
        self.endpoint.close()


class VisaContract(TransportContract):
    kind: type[HislipEndpoint] | type[Vxi11Endpoint]
    nowhere: str

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        far = LanEnd(self.kind())
        workers = PortWorkers(spawn_port_worker)
        transport = VisaTransport(VisaDefinition(far.endpoint.address, "@py"), workers)
        yield Line(transport, far, VisaTransport(VisaDefinition(self.nowhere, "@py"), workers))
        await transport.aclose()
        far.hang_up()

    async def test_a_device_clear_leaves_nothing_of_what_was_said_before(self) -> None:
        async with self.line() as line:
            listener = Listener()
            await line.transport.open(listener, 10)
            line.transport.write_nowait(b"ask")
            await line.transport.clear(5)
            assert line.transport.is_open
            assert listener.heard == b""
            assert line.transport.ask_nowait(b"again", 5) == 5
            await until(lambda: line.far.heard.endswith(b"again"))
            line.far.say(b"answer")
            await until(lambda: listener.heard == b"answer")
            await line.transport.aclose()


class TestHislip(VisaContract):
    kind = HislipEndpoint
    nowhere = "TCPIP0::127.0.0.1::hislip0,1::INSTR"


class TestVxi11(VisaContract):
    kind = Vxi11Endpoint
    nowhere = "TCPIP0::127.0.0.1,1::inst0::INSTR"
