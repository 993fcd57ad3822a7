"""Bytes in, bytes out, one owner at a time: transports, framing, and the broker that shares each port fairly."""

from duodaq.model import WireRecord
from duodaq.ports._books import FENCED
from duodaq.ports._broker import Broker
from duodaq.ports._codec import Deed, Explains, Interprets, PortCodec, deeds_of, meaning, meaning_of_reply
from duodaq.ports._commands import CommandEnds, CommandStream
from duodaq.ports._desk_line import DeskLine
from duodaq.ports._exchange import Exchange
from duodaq.ports._fence import Fences
from duodaq.ports._framing import Block488, FixedLength, Framing, Idle, Lines, Terminated, TerminatedOrBlock
from duodaq.ports._gate import Gate
from duodaq.ports._guest import GuestStatus
from duodaq.ports._here import PortsHere, announce_ports, lend, lent_sessions, ports_here, withdraw_ports
from duodaq.ports._lock import LockAction, LockOutcome, LockVerdict
from duodaq.ports._make import make_transport
from duodaq.ports._memory import MemoryTransport
from duodaq.ports._outside import LabPorts
from duodaq.ports._owner import PortOwner
from duodaq.ports._port import FROM_CODEC, Lease, Port
from duodaq.ports._port_desk import PortDesk
from duodaq.ports._programs import command_of, has_open, programs_behind, programs_connected, programs_holding
from duodaq.ports._queue import Lane, LeaseQueue, Ticket
from duodaq.ports._remote_broker import RemoteBroker, ThreadLines
from duodaq.ports._reply_buffer import ReadEnd
from duodaq.ports._seat import LineOwner, PortSource, Seat
from duodaq.ports._sentences import Ended, Granted, Heard, LockTold, OfUser, Stopped, ToUser, Written
from duodaq.ports._serial import SerialTransport
from duodaq.ports._session import BlockingSession
from duodaq.ports._status import PortState, PortStatus
from duodaq.ports._tcp import TcpTransport
from duodaq.ports._told_codec import StatusCodec, status_query_of
from duodaq.ports._transport import FetchingTransport, MessageReceiver, Receiver, Transport
from duodaq.ports._usb import UsbIdentity, UsbTty, usb_ttys
from duodaq.ports._virtual import VirtualPort
from duodaq.ports._visa import VisaTransport
from duodaq.ports._visa_name import visa_alias, visa_name
from duodaq.ports._visa_process import SpawnWorker, WorkerProcess
from duodaq.ports._visa_worker import serve_visa
from duodaq.ports._visa_workers import PortWorkers, worker_key
from duodaq.ports._wirelog import WireLog

__all__ = [
    "FENCED",
    "FROM_CODEC",
    "Block488",
    "BlockingSession",
    "Broker",
    "CommandEnds",
    "CommandStream",
    "Deed",
    "DeskLine",
    "Ended",
    "Exchange",
    "Explains",
    "Fences",
    "FetchingTransport",
    "FixedLength",
    "Framing",
    "Gate",
    "Granted",
    "GuestStatus",
    "Heard",
    "Idle",
    "Interprets",
    "LabPorts",
    "Lane",
    "Lease",
    "LeaseQueue",
    "LineOwner",
    "Lines",
    "LockAction",
    "LockOutcome",
    "LockTold",
    "LockVerdict",
    "MemoryTransport",
    "MessageReceiver",
    "OfUser",
    "Port",
    "PortCodec",
    "PortDesk",
    "PortOwner",
    "PortSource",
    "PortState",
    "PortStatus",
    "PortWorkers",
    "PortsHere",
    "ReadEnd",
    "Receiver",
    "RemoteBroker",
    "Seat",
    "SerialTransport",
    "SpawnWorker",
    "StatusCodec",
    "Stopped",
    "TcpTransport",
    "Terminated",
    "TerminatedOrBlock",
    "ThreadLines",
    "Ticket",
    "ToUser",
    "Transport",
    "UsbIdentity",
    "UsbTty",
    "VirtualPort",
    "VisaTransport",
    "WireLog",
    "WireRecord",
    "WorkerProcess",
    "Written",
    "announce_ports",
    "command_of",
    "deeds_of",
    "has_open",
    "lend",
    "lent_sessions",
    "make_transport",
    "meaning",
    "meaning_of_reply",
    "ports_here",
    "programs_behind",
    "programs_connected",
    "programs_holding",
    "serve_visa",
    "status_query_of",
    "usb_ttys",
    "visa_alias",
    "visa_name",
    "withdraw_ports",
    "worker_key",
]
