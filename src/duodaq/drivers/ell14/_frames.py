"""What Elliptec devices say: an address, two capital letters, digits of a length that the letters fix, CR LF."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from duodaq.errors import ReplyFormatError

__all__ = [
    "EllFrame",
    "EllFraming",
    "EllIdentity",
    "EllStatus",
    "parse_identity",
    "parse_position",
    "parse_status",
    "split_frames",
]

ADDRESSES = b"0123456789ABCDEF"
_LENGTHS = {
    b"GS": 2,
    b"BS": 2,
    b"GV": 2,
    b"IN": 30,
    b"I1": 22,
    b"I2": 22,
    **dict.fromkeys((b"PO", b"BO", b"GJ", b"HO"), 8),
}
_END = b"\r\n"
_LONGEST = 64
_BUTTON = (b"BO", b"BS")


class EllStatus(IntEnum):
    """The codes of GS. Reading one that is a fault clears it."""

    OK = 0x00
    COMMUNICATION_TIMEOUT = 0x01
    MECHANICAL_TIMEOUT = 0x02
    NOT_SUPPORTED = 0x03
    OUT_OF_RANGE = 0x04
    ISOLATED = 0x05
    OUT_OF_ISOLATION = 0x06
    INITIALISATION = 0x07
    THERMAL = 0x08
    BUSY = 0x09
    SENSOR = 0x0A
    MOTOR = 0x0B
    BEYOND_TRAVEL = 0x0C
    OVER_CURRENT = 0x0D
    UNKNOWN = 0xFF

    @classmethod
    def _missing_(cls, value: object) -> EllStatus:
        return cls.UNKNOWN

    @property
    def text(self) -> str:
        """It in words."""
        return self.name.lower().replace("_", " ")


class EllFrame(NamedTuple):
    """One whole frame: who speaks, what kind, and its digits."""

    address: bytes
    letters: bytes
    data: bytes


class EllIdentity(NamedTuple):
    """What IN tells: the model, its serial number, and how many pulses are a revolution."""

    model: int
    serial: str
    firmware: str
    travel_deg: int
    pulses: int


def split_frames(heard: bytes) -> tuple[list[bytes], bytes]:
    """The whole frames in `heard`, each with its end, and what stands behind the last.

    A device that loses its power in the middle of a frame leaves a piece without an end, which stands before the next
    one's beginning: it is a part of its own here, without an end.
    """
    *whole, rest = heard.split(_END)
    return [part for frame in whole for part in _untorn(frame + _END)], rest


def _untorn(frame: bytes) -> list[bytes]:
    if parse_frame(frame) is None:
        for at in range(1, len(frame) - len(_END)):
            if parse_frame(frame[at:]) is not None:
                return [frame[:at], frame[at:]]
    return [frame]


def parse_frame(raw: bytes) -> EllFrame | None:
    """The frame, or None if it is none: a wrong address, length or digit."""
    body = raw.removesuffix(_END)
    address, letters, data = body[:1], body[1:3], body[3:]
    if len(address) != 1 or address not in ADDRESSES or len(data) != _LENGTHS.get(letters, -1):
        return None
    return EllFrame(address, letters, data) if _is_hex(data) or letters == b"IN" else None


class EllFraming:
    """The reply of one address: one frame of these `letters`. Other addresses' frames and button moves are passed by.

    Raises ReplyFormatError on a damaged frame, unless its address tells that it was somebody else's.

    Args:
        ok_is_one: Whether GS00 is a reply. To a motion it is none: it belongs to a stop, and the motion ends by PO.
    """

    def __init__(self, address: bytes, letters: tuple[bytes, ...], *, ok_is_one: bool = True) -> None:
        self.address = address
        self.letters = letters
        self._ok_is_one = ok_is_one
        self.rest = b""
        self._held = b""
        self._passed: list[bytes] = []

    def reset(self) -> None:
        """Ready for another reply."""
        self.rest = self._held = b""
        self._passed.clear()

    def takes(self, frame: bytes) -> bool:
        """Whether `frame` is the reply."""
        known = parse_frame(frame) if frame.endswith(_END) else None
        if known is None or known.address != self.address or known.letters not in self.letters:
            return False
        return self._ok_is_one or (known.letters, known.data) != (b"GS", b"00")

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; the reply once it is there. What was passed by, and what came behind it, is in `rest`."""
        frames, self._held = split_frames(self._held + data)
        for index, frame in enumerate(frames):
            if self.takes(frame):
                self.rest = b"".join([*self._passed, *frames[index + 1 :]]) + self._held
                self._held = b""
                return frame
            self._pass_by(frame)
        if len(self._held) > _LONGEST:
            raise ReplyFormatError("a frame without an end", reply=self._held[:_LONGEST])
        return None

    def _pass_by(self, frame: bytes) -> None:
        known = parse_frame(frame)
        others = frame[:1] in ADDRESSES and frame[:1] != self.address
        torn = not frame.endswith(_END)
        if known is None and not others and not torn:
            raise ReplyFormatError(f"damaged reply {frame!r}", reply=frame)
        self._passed.append(frame)


def is_button(frame: EllFrame) -> bool:
    """Whether somebody at the device's button made it speak."""
    return frame.letters in _BUTTON


def parse_position(reply: bytes) -> int:
    """The pulses in PO.

    Raises:
        ReplyFormatError: It is no PO.
    """
    frame = parse_frame(reply)
    if frame is None or frame.letters not in (b"PO", b"BO"):
        raise ReplyFormatError(f"expected a position, got {reply!r}", reply=reply)
    value = int(frame.data, 16)
    return value - (1 << 32) if value >= 1 << 31 else value


def parse_status(reply: bytes) -> EllStatus | None:
    """The status in GS; None if the reply is another one."""
    frame = parse_frame(reply)
    return EllStatus(int(frame.data, 16)) if frame is not None and frame.letters == b"GS" else None


def parse_identity(reply: bytes) -> EllIdentity:
    """What IN tells.

    Raises:
        ReplyFormatError: It is no IN, or its pulses are none.
    """
    frame = parse_frame(reply)
    if frame is None or frame.letters != b"IN" or not _is_hex(frame.data[:2] + frame.data[14:]):
        raise ReplyFormatError(f"expected an identity, got {reply!r}", reply=reply)
    data = frame.data
    pulses = int(data[22:30], 16)
    if not pulses:
        raise ReplyFormatError(f"no pulses in a revolution: {reply!r}", reply=reply)
    text = data.decode("latin-1")
    return EllIdentity(int(data[:2], 16), text[2:10], text[14:16], int(data[18:22], 16), pulses)


def _is_hex(data: bytes) -> bool:
    return all(digit in b"0123456789ABCDEFabcdef" for digit in data)
