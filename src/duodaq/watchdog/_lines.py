from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from typing import Any

from duodaq.watchdog import _serial_line as serial_line
from duodaq.watchdog._wire import Message, data


class Line:
    """What the watchdog knows of one port: its descriptor, how to open it again, and what is to be written there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.descriptor: int | None = None
        self.serial: dict[str, Any] | None = None
        self.tcp: str | None = None
        self.link: str | None = None
        self.terminator = b""
        self.crash: list[bytes] = []
        self.stop_all: list[bytes] = []
        self._peer: tuple[Any, ...] | None = None

    def learn(self, message: Message) -> None:
        """Take over what the manager said about it."""
        self.serial, self.tcp, self.link = message["serial"], message["tcp"], message.get("link")
        self.terminator = data(message["terminator"])
        self.crash = [data(action) for action in message["crash"]]
        self.stop_all = [data(action) for action in message["stop_all"]]

    def hold(self, descriptor: int | None) -> None:
        """Take over `descriptor`, or have none from now on; the one before is closed."""
        self.let_go()
        self.descriptor = descriptor
        if descriptor is None:
            return
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):  # it is no connection
            connection = socket.socket(fileno=descriptor)
            try:
                self._peer = connection.getpeername()
            finally:
                connection.detach()

    def remove_link(self) -> None:
        """Take away the link of its virtual pty, whose lab is dead: by now it may lead to somebody else's terminal.

        Not if another lab has it already, which its lock tells; see `VirtualLink`.
        """
        if self.link is None:
            return
        folder, name = os.path.split(self.link)
        lock_file = os.path.join(folder, f".{name}.lock")
        with contextlib.suppress(OSError):
            lock = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.readlink(self.link).startswith("/dev/pts/"):
                    os.unlink(self.link)
                os.unlink(lock_file)
            finally:
                os.close(lock)

    def let_go(self) -> None:
        """Close its descriptor."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    @property
    def can_reopen(self) -> bool:
        return self.serial is not None or self.tcp is not None

    def open_again(self, limit_s: float) -> int:
        """A new descriptor for it. May block for longer than `limit_s`, where a device or a name server hangs.

        Raises:
            OSError: It cannot be opened.
        """
        if self.serial is not None:
            return serial_line.open_serial(self.serial)
        host, _, port = (self.tcp or "").rpartition(":")
        # Where the last connection led needs no name server, which may be as dead as the rest.
        place = self._peer[:2] if self._peer else (host.strip("[]"), int(port))
        connection = socket.create_connection(place, timeout=limit_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection.detach()


class Writing:
    """Bytes on their way to a line: how many were taken, when the last one was, or what prevented it."""

    def __init__(self, line: Line, actions: list[bytes]) -> None:
        self.line = line
        self.data = line.terminator + b"".join(actions)
        self.sent = 0
        self.done_ns: int | None = None
        self.error = ""
        self.reopened = False
        self._flushed = False

    @property
    def is_whole(self) -> bool:
        return self.sent == len(self.data)

    def begin(self) -> bool:
        """Take back what the line has not sent yet, and push."""
        descriptor = self.line.descriptor
        if descriptor is not None and serial_line.is_tty(descriptor) and serial_line.unsent(descriptor):
            self._flush(descriptor)
        return self.push()

    def push(self) -> bool:
        """Write as much as the line takes now; True when nothing is left to do: all of it is written, or failed."""
        try:
            while not self.is_whole:
                taken = self._write(self.data[self.sent :])
                if not taken:
                    return False
                self.sent += taken
        except BlockingIOError:
            return False
        except OSError as error:
            self.error = error.strerror or str(error)
            return True
        return True

    def _write(self, rest: bytes) -> int:
        descriptor = self.line.descriptor
        assert descriptor is not None
        try:
            return os.write(descriptor, rest)
        except BlockingIOError:
            # What fills a tty would be carried out before the stop, should it ever move again.
            if self._flushed or self.sent or not serial_line.is_tty(descriptor):
                raise
            self._flush(descriptor)
            return os.write(descriptor, rest)

    def _flush(self, descriptor: int) -> None:
        self._flushed = True
        serial_line.discard_output(descriptor)

    def restart(self, descriptor: int) -> None:
        """Begin again from the first byte, on a line that was opened again."""
        self.line.hold(descriptor)
        self.sent, self.error, self.reopened = 0, "", True


class Answer:
    """What came back from a line after the actions: all of it counted, its beginning kept."""

    KEPT = 200

    def __init__(self, line: Line) -> None:
        self.line = line
        self.size = 0
        self.beginning = b""
        self.heard_s = time.monotonic()

    def read(self) -> bool:
        """Take what is there now; False when the line has ended."""
        assert self.line.descriptor is not None
        try:
            heard = os.read(self.line.descriptor, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.size += len(heard)
        self.beginning += heard[: self.KEPT - len(self.beginning)]
        self.heard_s = time.monotonic()
        return bool(heard)
