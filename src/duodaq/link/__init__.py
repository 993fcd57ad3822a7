"""Frames and messages over a UNIX socket: requests with typed errors, and events, between programs of one user.

Besides, what the processes of one lab use among themselves: messages over a connected socket, descriptors, and blobs by
shared memory: a ring with one writer, and readers that see its arrays without a copy.
"""

from duodaq.link._blocking_pipe import BlockingPipe
from duodaq.link._client import LinkClient, LinkEvents
from duodaq.link._descriptors import receive_descriptors, send_descriptors
from duodaq.link._error import error_from_wire, error_to_wire
from duodaq.link._frame import FrameDecoder, encode
from duodaq.link._message import Message
from duodaq.link._news import News
from duodaq.link._pipe import NO_MEMORY, Pipe
from duodaq.link._rendezvous import (
    LAB_PROTOCOL,
    LabLock,
    find_lab,
    lab_of,
    running_labs,
    socket_path,
    tap_path,
    watchdog_path,
)
from duodaq.link._ring import BlobRef, RingReader, RingWriter
from duodaq.link._server import LinkServer, Session, Talk
from duodaq.link._talk import BlockingTalk

__all__ = [
    "LAB_PROTOCOL",
    "NO_MEMORY",
    "BlobRef",
    "BlockingPipe",
    "BlockingTalk",
    "FrameDecoder",
    "LabLock",
    "LinkClient",
    "LinkEvents",
    "LinkServer",
    "Message",
    "News",
    "Pipe",
    "RingReader",
    "RingWriter",
    "Session",
    "Talk",
    "encode",
    "error_from_wire",
    "error_to_wire",
    "find_lab",
    "lab_of",
    "receive_descriptors",
    "running_labs",
    "send_descriptors",
    "socket_path",
    "tap_path",
    "watchdog_path",
]
