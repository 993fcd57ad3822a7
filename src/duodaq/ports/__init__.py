"""Bytes in, bytes out, one owner at a time: transports, framing, and the broker that shares each port fairly."""

from duodaq.model import WireRecord
from duodaq.ports._broker import Broker
from duodaq.ports._codec import PortCodec
from duodaq.ports._commands import CommandEnds, CommandStream
from duodaq.ports._exchange import Exchange
from duodaq.ports._framing import Block488, FixedLength, Framing, Idle, Lines, Terminated, TerminatedOrBlock
from duodaq.ports._guest import GuestStatus
from duodaq.ports._make import make_transport
from duodaq.ports._memory import MemoryTransport
from duodaq.ports._owner import PortOwner
from duodaq.ports._port import FROM_CODEC, Lease, Port
from duodaq.ports._programs import command_of, has_open, programs_holding
from duodaq.ports._queue import Lane, LeaseQueue, Ticket
from duodaq.ports._seat import LineOwner, PortSource, Seat
from duodaq.ports._serial import SerialTransport
from duodaq.ports._session import BlockingSession
from duodaq.ports._status import PortState, PortStatus
from duodaq.ports._tcp import TcpTransport
from duodaq.ports._transport import Receiver, Transport
from duodaq.ports._virtual import VirtualPort
from duodaq.ports._wirelog import WireLog

__all__ = [
    "FROM_CODEC",
    "Block488",
    "BlockingSession",
    "Broker",
    "CommandEnds",
    "CommandStream",
    "Exchange",
    "FixedLength",
    "Framing",
    "GuestStatus",
    "Idle",
    "Lane",
    "Lease",
    "LeaseQueue",
    "LineOwner",
    "Lines",
    "MemoryTransport",
    "Port",
    "PortCodec",
    "PortOwner",
    "PortSource",
    "PortState",
    "PortStatus",
    "Receiver",
    "Seat",
    "SerialTransport",
    "TcpTransport",
    "Terminated",
    "TerminatedOrBlock",
    "Ticket",
    "Transport",
    "VirtualPort",
    "WireLog",
    "WireRecord",
    "command_of",
    "has_open",
    "make_transport",
    "programs_holding",
]
