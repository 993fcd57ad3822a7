"""What every Transport promises, as tests: subclass `TransportContract` and say how to make a line.

::

    class TestTcp(TransportContract):
        @asynccontextmanager
        async def line(self):
            yield Line(transport, far_end)
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import pytest

from duodaq import clock
from duodaq.errors import PortLostError, PortOpenError
from duodaq.ports import FetchingTransport, Transport


class FarEnd(Protocol):
    """The other end of a line under test."""

    heard: bytearray

    def say(self, data: bytes) -> None: ...

    def hang_up(self) -> None: ...


@dataclass(frozen=True)
class Line:
    """A transport, closed, and what is at its far end; `nowhere` is one of the same kind that leads to nothing."""

    transport: Transport
    far: FarEnd
    nowhere: Transport


class Listener:
    """A receiver that keeps what it hears."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.lost = 0

    def data_received(self, data: bytes, /) -> None:
        assert data
        assert not self.lost
        self.heard += data

    def transport_lost(self, cause: Exception | None, /) -> None:
        self.lost += 1


def listen(transport: Transport, limit_s: float = 5.0) -> None:
    """Have what the far end says come: by itself, or, on a line that carries messages, by fetching it."""
    if isinstance(transport, FetchingTransport):
        transport.fetch_nowait(limit_s)


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Wait for `condition` on real time."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await clock.pause(0.002)


class TransportContract(ABC):
    """Tests that every transport passes."""

    @abstractmethod
    def line(self) -> AbstractAsyncContextManager[Line]:
        """A line to test on."""

    async def test_bytes_arrive_whole_and_in_order_both_ways(self) -> None:
        everything = bytes(range(256)) * 4
        async with self.line() as line:
            listener = Listener()
            await line.transport.open(listener, 5)
            assert line.transport.write_nowait(everything) == len(everything)
            if isinstance(line.transport, FetchingTransport):  # there a message that comes later interrupts
                await until(lambda: len(line.far.heard) == len(everything))
            line.far.say(everything)
            listen(line.transport)
            await until(lambda: len(line.far.heard) == len(listener.heard) == len(everything))
            assert bytes(line.far.heard) == bytes(listener.heard) == everything
            await line.transport.aclose()

    async def test_it_knows_whether_it_is_open_and_where_it_leads(self) -> None:
        async with self.line() as line:
            assert not line.transport.is_open
            await line.transport.open(Listener(), 5)
            assert line.transport.is_open
            assert line.transport.address
            assert ":" in line.transport.identity()
            await line.transport.aclose()
            assert not line.transport.is_open

    async def test_its_descriptor_is_there_while_it_is_open_if_there_is_any(self) -> None:
        async with self.line() as line:
            assert line.transport.descriptor is None
            await line.transport.open(Listener(), 5)
            descriptor = line.transport.descriptor
            assert descriptor is None or os.fstat(descriptor)
            await line.transport.aclose()
            assert line.transport.descriptor is None

    async def test_closing_twice_is_closing_once_and_nobody_is_told(self) -> None:
        async with self.line() as line:
            listener = Listener()
            await line.transport.open(listener, 5)
            await line.transport.aclose()
            await line.transport.aclose()
            await clock.pause(0.01)
            assert listener.lost == 0

    async def test_it_can_be_opened_again(self) -> None:
        async with self.line() as line:
            await line.transport.open(Listener(), 5)
            await line.transport.aclose()
            listener = Listener()
            await line.transport.open(listener, 5)
            line.far.say(b"again\n")
            listen(line.transport)
            await until(lambda: bytes(listener.heard) == b"again\n")
            await line.transport.aclose()

    async def test_a_far_end_that_hangs_up_is_told_once_and_the_transport_is_closed(self) -> None:
        async with self.line() as line:
            listener = Listener()
            await line.transport.open(listener, 5)
            line.far.hang_up()
            await until(lambda: listener.lost == 1)
            assert not line.transport.is_open
            with pytest.raises(PortLostError):
                line.transport.write_nowait(b"anybody?\n")
            await line.transport.aclose()
            assert listener.lost == 1

    async def test_writing_before_it_is_open_is_a_lost_port(self) -> None:
        async with self.line() as line:
            with pytest.raises(PortLostError):
                line.transport.write_nowait(b"x")

    async def test_what_leads_nowhere_does_not_open(self) -> None:
        async with self.line() as line:
            with pytest.raises(PortOpenError):
                await line.nowhere.open(Listener(), 5)
            assert not line.nowhere.is_open
