from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from duodaq.model import PortDefinition
from duodaq.ports import BlockingSession, Port

_PYSERIAL_NAMES = {"baud": "baudrate"}
_WHERE = ("path", "usb", "location", "interface")


@dataclass(frozen=True, slots=True)
class SharedLine:
    """A driver's way to its shared port: its session there, and what the lab file says of the line.

    `settings` are the serial line's, under pyserial's names; `write_terminator` is the codec's, if the port has one.
    """

    session: BlockingSession
    name: str
    write_terminator: bytes = b""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


def shared_line(port: Port, definition: PortDefinition, session: BlockingSession) -> SharedLine:
    """The line of `session` on `port`."""
    serial = definition.serial or {}
    settings = {_PYSERIAL_NAMES.get(key, key): value for key, value in serial.items() if key not in _WHERE}
    end = port.codec.write_terminator if port.codec is not None else b""
    return SharedLine(session, port.name, end, settings)
