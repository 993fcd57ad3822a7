"""Frames and messages over a UNIX socket: requests with typed errors, and events, between programs of one user.

Besides, what the processes of one lab use among themselves: messages over a connected socket, descriptors, and blobs by
shared memory: a ring with one writer, and readers that see its arrays without a copy.

Names are resolved when they are first used: what sends a stop on its way loads neither rings nor logging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duodaq._names import names_of

if TYPE_CHECKING:
    from duodaq.link._blocking_pipe import BlockingPipe
    from duodaq.link._client import LinkClient, LinkEvents
    from duodaq.link._descriptors import receive_descriptors, send_descriptors
    from duodaq.link._error import error_from_wire, error_to_wire
    from duodaq.link._frame import FrameDecoder, encode
    from duodaq.link._message import Message
    from duodaq.link._news import News
    from duodaq.link._once import ask_once
    from duodaq.link._pipe import NO_MEMORY, Pipe
    from duodaq.link._rendezvous import (
        DIED,
        LAB_PROTOCOL,
        LabLock,
        LastRun,
        find_lab,
        lab_of,
        process_of,
        running_labs,
        socket_path,
        tap_path,
        watchdog_path,
    )
    from duodaq.link._ring import BlobRef, RingReader, RingWriter
    from duodaq.link._server import LinkServer, Session, Talk
    from duodaq.link._talk import BlockingTalk

__all__ = [
    "DIED",
    "LAB_PROTOCOL",
    "NO_MEMORY",
    "BlobRef",
    "BlockingPipe",
    "BlockingTalk",
    "FrameDecoder",
    "LabLock",
    "LastRun",
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
    "ask_once",
    "encode",
    "error_from_wire",
    "error_to_wire",
    "find_lab",
    "lab_of",
    "process_of",
    "receive_descriptors",
    "running_labs",
    "send_descriptors",
    "socket_path",
    "tap_path",
    "watchdog_path",
]

_HOMES = {
    "DIED": "duodaq.link._rendezvous",
    "LAB_PROTOCOL": "duodaq.link._rendezvous",
    "NO_MEMORY": "duodaq.link._pipe",
    "BlobRef": "duodaq.link._ring",
    "BlockingPipe": "duodaq.link._blocking_pipe",
    "BlockingTalk": "duodaq.link._talk",
    "FrameDecoder": "duodaq.link._frame",
    "LabLock": "duodaq.link._rendezvous",
    "LastRun": "duodaq.link._rendezvous",
    "LinkClient": "duodaq.link._client",
    "LinkEvents": "duodaq.link._client",
    "LinkServer": "duodaq.link._server",
    "Message": "duodaq.link._message",
    "News": "duodaq.link._news",
    "Pipe": "duodaq.link._pipe",
    "RingReader": "duodaq.link._ring",
    "RingWriter": "duodaq.link._ring",
    "Session": "duodaq.link._server",
    "Talk": "duodaq.link._server",
    "ask_once": "duodaq.link._once",
    "encode": "duodaq.link._frame",
    "error_from_wire": "duodaq.link._error",
    "error_to_wire": "duodaq.link._error",
    "find_lab": "duodaq.link._rendezvous",
    "lab_of": "duodaq.link._rendezvous",
    "process_of": "duodaq.link._rendezvous",
    "receive_descriptors": "duodaq.link._descriptors",
    "running_labs": "duodaq.link._rendezvous",
    "send_descriptors": "duodaq.link._descriptors",
    "socket_path": "duodaq.link._rendezvous",
    "tap_path": "duodaq.link._rendezvous",
    "watchdog_path": "duodaq.link._rendezvous",
}

__getattr__, __dir__ = names_of(globals(), _HOMES)
