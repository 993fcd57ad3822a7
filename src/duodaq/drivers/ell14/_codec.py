"""Elliptec bytes: an address, two small letters, and as much data as the letters say; nothing ends a command.

The reply to a command that moves comes when the motion ends. Until then the line is everybody's: `defers` tells the
broker, which sets such an exchange aside and finds its reply, by address, among the others'.
"""

from __future__ import annotations

from duodaq.drivers.ell14._frames import ADDRESSES, EllFraming, split_frames
from duodaq.ports import Framing

__all__ = ["EllCodec", "stop_bytes_of"]

_DATA = {
    **dict.fromkeys((b"ma", b"mr", b"sj", b"so"), 8),
    **dict.fromkeys((b"f1", b"b1", b"f2", b"b2"), 4),
    **dict.fromkeys((b"sv", b"is"), 2),
    **dict.fromkeys((b"ca", b"ga", b"ho"), 1),
}
_MOVES = (b"ma", b"mr", b"ho", b"fw", b"bw")
_SEARCHES = (b"s1", b"s2", b"c1", b"c2")
"""They move too, a little, and take seconds."""
_STOPS = (b"st", b"ms")
_REPLIES = {
    b"in": (b"IN",),
    b"gp": (b"PO",),
    b"gj": (b"GJ",),
    b"go": (b"HO",),
    b"gv": (b"GV",),
    b"i1": (b"I1",),
    b"i2": (b"I2",),
    **dict.fromkeys(_MOVES, (b"PO",)),
}


def stop_bytes_of(address: bytes) -> bytes:
    """What stops the device at `address`."""
    return address + b"st"


def _commands(written: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The commands in `written`: address, letters, data. Line ends, which hosts add, are nothing."""
    left = written.replace(b"\r", b"").replace(b"\n", b"")
    found: list[tuple[bytes, bytes, bytes]] = []
    while len(left) >= 3 and left[:1] in ADDRESSES:
        letters = left[1:3]
        length = 3 + _DATA.get(letters, 0)
        if letters == b"ho" and left[3:4] not in (b"0", b"1"):
            length = 3
        found.append((left[:1], letters, left[3:length]))
        left = left[length:]
    return found


class EllCodec:
    """Elliptec devices for the broker, any number of them on the line."""

    name = "ell14"
    addressed = True
    """An axis's number is a device's address: stopping an instrument stops its own devices."""
    write_terminator = b""
    abort_bytes = b""
    longest_reply_s = 2.5
    """A half-written command is answered when the device has given it up, after 2 s; everything else at once."""
    latest_reply_s: float = 20.0
    """A search for home at the lowest velocity; nothing that moves takes longer."""

    def expects_reply(self, written: bytes) -> Framing | None:
        """One frame of the address that the last command goes to. A stop's answer is waited for by nobody."""
        commands = _commands(written)
        if not commands or commands[-1][1] in _STOPS:
            return None
        address, letters, data = commands[-1]
        if letters == b"ca":
            address = data  # it answers from there
        return EllFraming(address, (*_REPLIES.get(letters, ()), b"GS"), ok_is_one=letters not in _MOVES)

    def defers(self, written: bytes) -> bool:
        """Whether the reply comes when a motion or a search has ended."""
        commands = _commands(written)
        return bool(commands) and commands[-1][1] in (*_MOVES, *_SEARCHES)

    def frames(self, heard: bytes) -> tuple[list[bytes], bytes]:
        """The whole frames in what was heard, and the rest."""
        return split_frames(heard)

    def is_break_in(self, written: bytes) -> bool:
        """Never: the line is half duplex, so a stop waits for the answer in hand; that of a motion is not in hand."""
        return False

    def moves(self, written: bytes) -> bool:
        """Whether anything turns."""
        return any(letters in (*_MOVES, *_SEARCHES) for _, letters, _ in _commands(written))

    def destructive(self, written: bytes) -> bool:
        """Never: GS tells a fault once, but a copy of an old status would be worse than none."""
        return False

    def stop_bytes(self, axis: str | None = None) -> bytes | None:
        """Stop the device whose address is the number `axis`, or every address there can be."""
        if axis is None:
            return b"".join(stop_bytes_of(bytes((address,))) for address in ADDRESSES)
        return stop_bytes_of(f"{int(axis):X}".encode())

    def probe(self) -> tuple[bytes, Framing] | None:
        """None: nobody knows which addresses there are, and a reply names its device, so none can be mistaken."""
        return None

    def identity(self) -> tuple[bytes, Framing] | None:
        """None, for the same reason; each driver compares the serial number of its own devices."""
        return None
