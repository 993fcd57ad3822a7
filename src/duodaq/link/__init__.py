"""Frames and messages over a UNIX socket: requests with typed errors, and events, between programs of one user."""

from duodaq.link._client import LinkClient, LinkEvents
from duodaq.link._error import error_from_wire, error_to_wire
from duodaq.link._frame import FrameDecoder, encode
from duodaq.link._server import LinkServer

__all__ = ["FrameDecoder", "LinkClient", "LinkEvents", "LinkServer", "encode", "error_from_wire", "error_to_wire"]
