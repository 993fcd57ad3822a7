# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyserial is an extra and ships no types: what its list_ports tells is Any by design, and only in this file.
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from duodaq.errors import PortOpenError

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class UsbTty:
    """A serial device that hangs on USB, and what the system knows of it. Numbers are four hex digits, small."""

    device: str
    vid: str
    pid: str
    serial: str = ""
    location: str = ""
    interface: int = 0
    product: str = ""

    def __str__(self) -> str:
        name = ":".join(part for part in (self.vid, self.pid, self.serial) if part)
        place = f"location {self.location}, interface {self.interface}" if self.location else ""
        said = ", ".join(part for part in (self.product, place) if part)
        return f"{self.device} ({name}{f', {said}' if said else ''})"


@dataclass(frozen=True, slots=True)
class UsbIdentity:
    """Which adapter is meant: its numbers, its serial number if given, and where it is plugged in if that is given.

    Args:
        name: ``"vid:pid"`` or ``"vid:pid:serial"``, numbers in hex; letters may be small or capital.
        location: The USB socket, such as ``"1-2.3"``, for adapters without serial numbers of their own.
        interface: Which of an adapter's several lines, counted from 0.
    """

    name: str
    location: str | None = None
    interface: int | None = None

    def __str__(self) -> str:
        place = f" at {self.location}" if self.location is not None else ""
        return f"{self.name}{place}" + (f" interface {self.interface}" if self.interface is not None else "")

    def is_that_of(self, tty: UsbTty) -> bool:
        """Whether `tty` is one that is meant."""
        vid, pid, serial = [*self.name.lower().split(":", 2), ""][:3]
        return (
            (vid, pid) == (tty.vid, tty.pid)
            and serial in ("", tty.serial.lower())
            and self.location in (None, tty.location)
            and self.interface in (None, tty.interface)
        )

    def find(self, plugged: Iterable[UsbTty]) -> UsbTty:
        """The one that is meant.

        Raises:
            PortOpenError: None is, or several are; the sentence names them, or what is there instead.
        """
        everything = sorted(plugged, key=lambda tty: tty.device)
        found = [tty for tty in everything if self.is_that_of(tty)]
        if len(found) == 1:
            return found[0]
        if not found:
            others = _named(everything)
            there = f"; plugged in: {others}" if others else "; no USB serial device is plugged in at all"
            raise PortOpenError(f"no such USB device is plugged in{there}")
        raise PortOpenError(
            f"{len(found)} USB devices are {self}: {_named(found)}",
            left="nothing was opened; give its serial number too, or its location or interface",
        )


def _named(ttys: list[UsbTty]) -> str:
    more = f" and {len(ttys) - _SHOWN} more" if len(ttys) > _SHOWN else ""
    return ", ".join(map(str, ttys[:_SHOWN])) + more


def usb_ttys(comports: Callable[[], Iterable[Any]] | None = None) -> list[UsbTty]:
    """The serial devices on USB that are plugged in now; looked for anew each time, which takes some milliseconds.

    Args:
        comports: What lists them: pyserial's ``list_ports.comports``, or another of its kind.

    Raises:
        PortOpenError: pyserial is not installed.
    """
    look = comports or _pyserial_comports()
    return [_tty(port) for port in look() if port.vid is not None and port.pid is not None]


def _pyserial_comports() -> Callable[[], Iterable[Any]]:
    try:
        return importlib.import_module("serial.tools.list_ports").comports
    except ImportError:
        raise PortOpenError(
            "finding a USB device needs pyserial, which is not installed", left="run: pip install duodaq[serial]"
        ) from None


def _tty(port: Any) -> UsbTty:
    # Of an adapter with one line pyserial tells the socket, 1-2.3, and of one with several also which: 1-2.3:1.0
    location, _, line = str(port.location or "").partition(":")
    number = line.rpartition(".")[2]
    return UsbTty(
        str(port.device),
        f"{port.vid:04x}",
        f"{port.pid:04x}",
        str(port.serial_number or ""),
        location,
        int(number) if number.isdecimal() else 0,
        str(port.product or ""),
    )
