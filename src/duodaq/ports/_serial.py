# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyserial is an extra and ships no types: its objects are Any by design, and only in this file.
from __future__ import annotations

import contextlib
import errno
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duodaq.errors import PortBusyError, PortLostError, PortOpenError
from duodaq.ports._descriptor import DescriptorLine, drained, open_beside
from duodaq.ports._transport import Receiver
from duodaq.ports._usb import UsbIdentity, usb_ttys

_BY_ID = Path("/dev/serial/by-id")


class SerialTransport:
    """A serial line or pty, opened exclusively: flock, and on real lines TIOCEXCL against programs without flock.

    Args:
        path: The device; or None with `usb`.
        usb: ``"vid:pid:serial"`` in hex, found again under whatever name it comes back; the last part may be left out.
        location, interface: Which one, where that is not enough; see `UsbIdentity`.
        baud, bytesize, parity, stopbits, rtscts, xonxoff: As pyserial has them.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        usb: str | None = None,
        location: str | None = None,
        interface: int | None = None,
        baud: int = 9600,
        bytesize: int = 8,
        parity: str = "N",
        stopbits: float = 1,
        rtscts: bool = False,
        xonxoff: bool = False,
    ) -> None:
        self.path = path
        self.usb = UsbIdentity(usb, location, interface) if usb else None
        self._found = ""
        self._settings: dict[str, Any] = {
            "baudrate": baud,
            "bytesize": bytesize,
            "parity": parity,
            "stopbits": stopbits,
            "rtscts": rtscts,
            "xonxoff": xonxoff,
        }
        self._by_id: Path | None = None
        self._device: Any = None
        self._line: DescriptorLine | None = None

    @property
    def address(self) -> str:
        return self.path or (f"usb {self.usb}" + (f" ({self._found})" if self._found else ""))

    @property
    def is_open(self) -> bool:
        return self._line is not None and self._line.is_open

    @property
    def descriptor(self) -> int | None:
        return self._line.descriptor if self._line is not None else None

    def identity(self) -> str:
        if self.usb:
            return f"usb:{self.usb}"
        link = self._by_id or _link_to(self.address)
        return f"by-id:{link.name}" if link is not None else f"serial:{self.address}"

    async def open(self, receiver: Receiver, timeout_s: float) -> None:
        device = await open_beside(self._open_device, _close_device, timeout_s, self.address)
        self._device = device
        self._line = DescriptorLine(device.fileno(), receiver, lambda: _close_device(device), self.address)

    def _open_device(self) -> Any:
        serial = _pyserial(self.address)
        path = self._find_usb(self.usb) if self.usb else str(self._by_id or self.path)
        try:
            device = serial.Serial(path, timeout=0, write_timeout=0, exclusive=True, **self._settings)
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise _refusal(error, self.address) from error
        with contextlib.suppress(OSError):
            _keep_others_out(device.fileno())
        # Once opened it is that adapter: after a re-plug its old name may belong to another one.
        self._by_id = self._by_id or (None if self.usb else _link_to(path))
        return device

    def _find_usb(self, usb: UsbIdentity) -> str:
        self._found = ""
        try:
            self._found = usb.find(usb_ttys()).device
        except PortOpenError as error:
            raise error.about(port=self.address) from None
        return self._found

    def write_nowait(self, data: bytes) -> int:
        if self._line is None:
            raise PortLostError("not open", port=self.address)
        return self._line.write_nowait(data)

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        if self._line is not None:
            self._line.when_writable(callback)

    def discard_output(self) -> int:
        if not self.is_open:
            return 0
        unsent = _unsent(self._device)
        if unsent:
            _discard_output(self._device)
        return unsent

    async def aclose(self, timeout_s: float = 1.0) -> None:
        line, self._line = self._line, None
        if line is None or not line.is_open:
            return
        try:
            await drained(lambda: _unsent(self._device), timeout_s)
        finally:
            # What a blocked line never sent is dropped: closing would wait for it, half a minute on a USB adapter.
            # Only then: on a pty the flush takes back what was sent and the other side has not read yet.
            if _unsent(self._device):
                _discard_output(self._device)
            line.close()


def _link_to(path: str) -> Path | None:
    """The link in /dev/serial/by-id that leads to `path`, named after maker, model and serial number; None without."""
    try:
        target = Path(path).resolve()
        return next((link for link in sorted(_BY_ID.iterdir()) if link.resolve() == target), None)
    except OSError:
        return None


def _discard_output(device: Any) -> None:
    with contextlib.suppress(OSError):
        device.reset_output_buffer()


def _pyserial(address: str) -> Any:
    try:
        return importlib.import_module("serial")
    except ImportError:
        raise PortOpenError(
            "serial ports need pyserial, which is not installed", port=address, left="run: pip install duodaq[serial]"
        ) from None


def _keep_others_out(descriptor: int) -> None:
    """Refuse every later open of this tty, also by programs that know nothing of flock.

    Not on a pty: its flag would outlive a killed program for as long as the far side keeps the pty.
    """
    if os.ttyname(descriptor).startswith("/dev/pts/"):
        return
    fcntl = importlib.import_module("fcntl")
    termios = importlib.import_module("termios")
    fcntl.ioctl(descriptor, termios.TIOCEXCL)


def _close_device(device: Any) -> None:
    # Both locks belong to the line and not to the descriptor: they would stay as long as any duplicate of it does.
    with contextlib.suppress(OSError, ImportError, AttributeError):
        fcntl = importlib.import_module("fcntl")
        fcntl.flock(device.fileno(), fcntl.LOCK_UN)
        termios = importlib.import_module("termios")
        fcntl.ioctl(device.fileno(), termios.TIOCNXCL)
    with contextlib.suppress(OSError):
        device.close()


def _unsent(device: Any) -> int:
    try:
        return int(device.out_waiting)
    except OSError:
        return 0


def _refusal(error: Exception, address: str) -> PortOpenError | PortBusyError:
    number = getattr(error, "errno", None)
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return PortBusyError("another program has this port open", port=address, left="close it there, or share it")
    sentences = {
        errno.ENOENT: "there is no such device",
        errno.EACCES: "no permission (is this user in the group dialout?)",
        errno.EIO: "nothing answers at the other end",
    }
    return PortOpenError(sentences.get(number or 0, f"cannot be opened: {error}"), port=address)
