from __future__ import annotations

from duodaq.model import PortDefinition, VisaDefinition
from duodaq.ports._codec import PortCodec, meaning_of_reply
from duodaq.ports._codec import meaning as meaning_of
from duodaq.ports._framing import Framing, Terminated

SERIAL_POLL = b"\x10STB"
"""What a transport on a bus with status bytes is asked in place of bytes: DLE begins no instrument's command."""

_WORDS = "serial poll"


def has_serial_poll(visa: VisaDefinition) -> bool:
    """Whether a status byte can be read from that resource beside its messages."""
    name = visa.resource.upper()
    return not name.startswith("ASRL") and not name.endswith("::SOCKET")


def codec_on(port: PortDefinition, spoken: PortCodec | None) -> PortCodec | None:
    """The codec with which a port is used that speaks `spoken`: with its serial poll where its line has one.

    It is asked wherever the port is used from, so that every process takes the same bytes for the same thing.
    """
    if spoken is None or isinstance(spoken, BusCodec) or port.visa is None or not has_serial_poll(port.visa):
        return spoken
    return BusCodec(spoken)


class BusCodec:
    """A codec, on a line where the status byte is read by a serial poll: an exchange like any other, under a lease."""

    def __init__(self, spoken: PortCodec) -> None:
        self._spoken = spoken
        self.name = spoken.name
        self.write_terminator = spoken.write_terminator
        self.abort_bytes = spoken.abort_bytes
        self.longest_reply_s = spoken.longest_reply_s

    def status_query(self) -> bytes:
        """The serial poll."""
        return SERIAL_POLL

    def expects_reply(self, written: bytes, /) -> Framing | None:
        return Terminated(b"\n") if written == SERIAL_POLL else self._spoken.expects_reply(written)

    def is_break_in(self, written: bytes, /) -> bool:
        return written != SERIAL_POLL and self._spoken.is_break_in(written)

    def moves(self, written: bytes, /) -> bool:
        return written != SERIAL_POLL and self._spoken.moves(written)

    def destructive(self, written: bytes, /) -> bool:
        return written != SERIAL_POLL and self._spoken.destructive(written)

    def stop_bytes(self, axis: str | None, /) -> bytes | None:
        return self._spoken.stop_bytes(axis)

    def probe(self) -> tuple[bytes, Framing] | None:
        return self._spoken.probe()

    def identity(self) -> tuple[bytes, Framing] | None:
        return self._spoken.identity()

    def explain(self, written: bytes, /) -> str:
        return _WORDS if written == SERIAL_POLL else meaning_of(self._spoken, written).partition(", ")[0]

    def explain_reply(self, written: bytes, reply: bytes, /) -> str:
        return "" if written == SERIAL_POLL else meaning_of_reply(self._spoken, written, reply)
