from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from duodaq.model import PortDefinition
from duodaq.ports import PortCodec
from duodaq.watchdog._wire import Message, text


@dataclass(frozen=True, slots=True)
class PortPlan:
    """What the watchdog is to write on one port, and how to open it if its line is lost then.

    `crash` and `stop_all` are written in their order, each time after `terminator`; a port without `crash` is left
    alone when the program dies. `serial` and `tcp` are those of the port's definition; `link` is that of its virtual
    pty, which would lead nowhere then.
    """

    terminator: bytes = b""
    crash: tuple[bytes, ...] = ()
    stop_all: tuple[bytes, ...] = ()
    serial: dict[str, Any] | None = None
    tcp: str | None = None
    link: str | None = None

    def as_message(self, name: str) -> Message:
        """This plan as it is sent."""
        serial = dict(self.serial) if self.serial is not None else None
        if serial is not None and serial.get("path"):
            serial["path"] = os.path.abspath(serial["path"])
        return {
            "about": "port",
            "name": name,
            "terminator": text(self.terminator),
            "crash": [text(action) for action in self.crash],
            "stop_all": [text(action) for action in self.stop_all],
            "serial": serial,
            "tcp": self.tcp,
            "link": os.path.abspath(self.link) if self.link is not None else None,
        }


def plan_for(
    port: PortDefinition, codec: PortCodec | None, crash: Iterable[bytes] = (), stop_all: Iterable[bytes] = ()
) -> PortPlan:
    """The plan for a port: its codec terminates a half-written command, or without one the end of the actions' lines.

    Without a codec, ``SHUT 0\\n`` behind the half of a command would make one command of both, which no device takes.
    """
    crash, stop_all = tuple(crash), tuple(stop_all)
    terminator = codec.abort_bytes if codec is not None else _line_end([*crash, *stop_all])
    link = port.virtual.pty if port.virtual is not None else None
    return PortPlan(terminator, crash, stop_all, port.serial, port.tcp, link)


def _line_end(actions: list[bytes]) -> bytes:
    ends = [action[len(action.rstrip(b"\r\n")) :] for action in actions]
    return next((end for end in ends if end), b"")
