from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from typing import Any

_TTYS = "/sys/class/tty"
_CMSPAR = 0o10000000000  # "stick" parity of Linux, which the termios module has no name for


def is_tty(descriptor: int) -> bool:
    return os.isatty(descriptor)


def unsent(descriptor: int) -> int:
    """Bytes that the kernel took and has not sent (of a connection: that are not acknowledged yet)."""
    try:
        return struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
    except OSError:
        return 0


def discard_output(descriptor: int) -> None:
    """Forget what a serial line has not sent yet, and let it send again if an XOFF holds it."""
    try:
        termios.tcflush(descriptor, termios.TCOFLUSH)
        termios.tcflow(descriptor, termios.TCOON)
    except (OSError, termios.error):
        return  # the line is gone, and what it had not sent with it


def open_serial(settings: dict[str, Any], ttys: str = _TTYS) -> int:
    """A serial line, opened with the settings of a lab file, without waiting, and locked against others.

    Raises:
        OSError: It is not there, or another program has it.
    """
    path = settings.get("path") or find_usb(
        settings.get("usb") or "", ttys, settings.get("location"), settings.get("interface")
    )
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        configure(descriptor, settings)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, termios.error):
            raise OSError(*error.args) from error
        raise
    return descriptor


def configure(descriptor: int, settings: dict[str, Any]) -> None:
    """Set a tty to raw bytes with the settings of a lab file; what is not said is 9600 baud, 8N1, no flow control."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(descriptor)
    iflag = termios.IXON | termios.IXOFF if settings.get("xonxoff") else 0
    oflag, lflag = 0, 0
    cflag &= ~(termios.CSIZE | termios.PARENB | termios.PARODD | termios.CSTOPB | termios.CRTSCTS)
    cflag |= termios.CREAD | termios.CLOCAL | getattr(termios, f"CS{settings.get('bytesize', 8)}")
    parity = str(settings.get("parity", "N")).upper()
    if parity != "N":
        cflag |= termios.PARENB | (termios.PARODD if parity in "OM" else 0) | (_CMSPAR if parity in "MS" else 0)
    if settings.get("stopbits", 1) != 1:
        cflag |= termios.CSTOPB
    if settings.get("rtscts"):
        cflag |= termios.CRTSCTS
    # A rate that has no number of its own stays as the line had it: it was set before, by whoever lost the line.
    speed = getattr(termios, f"B{settings.get('baud', 9600)}", None)
    if speed is not None:
        ispeed = ospeed = speed
    cc[termios.VMIN], cc[termios.VTIME] = 0, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])


def find_usb(usb: str, ttys: str = _TTYS, location: str | None = None, interface: int | None = None) -> str:
    """The device of a USB adapter given as ``"vid:pid:serial"`` in hex, of which the last part may be left out.

    Raises:
        FileNotFoundError: It is not plugged in, or several are what is asked for: bytes never go to one by chance.
    """
    wanted, found = usb.lower().split(":", 2), list[str]()
    for name in sorted(os.listdir(ttys)) if usb else []:
        line = place = os.path.realpath(os.path.join(ttys, name, "device"))
        while len(place) > 1 and not os.path.exists(os.path.join(place, "idVendor")):
            line, place = place, os.path.dirname(place)
        facts = [_fact(place, fact) for fact in ("idVendor", "idProduct", "serial")]
        here = location in (None, os.path.basename(place)) and interface in (None, _number(line))
        if facts[: len(wanted)] == wanted and here:
            found.append(f"/dev/{name}")
    if len(found) != 1:
        what = "several USB devices are it" if found else "no such USB device is plugged in"
        raise FileNotFoundError(errno.ENOENT, what, usb)
    return found[0]


def _number(interface: str) -> int | None:
    """The number of an interface's folder: 1 of ``1-2.3:1.1``."""
    number = os.path.basename(interface).partition(":")[2].rpartition(".")[2]
    return int(number) if number.isdecimal() else None


def _fact(place: str, name: str) -> str:
    try:
        with open(os.path.join(place, name), encoding="utf-8", errors="replace") as file:
            return file.read().strip().lower()
    except OSError:
        return ""
