from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from duodaq.clock import Deadline
from duodaq.errors import ConfigError, PortTimeoutError
from duodaq.v2.families._line import SharedLine

_CHUNK = 4096
_FOREVER_S = 3600.0
_LINE_SETTINGS = ("baudrate", "bytesize", "parity", "stopbits", "xonxoff", "rtscts", "dsrdtr")


class SharedSerial(io.RawIOBase):
    """A shared port behind the interface of ``serial.Serial``: what home-made drivers are written against.

    Reads and time-outs behave as pyserial's: a read that times out returns what there is, ``timeout=None`` waits for
    ever, ``timeout=0`` not at all. The line's own settings belong to the lab file, because others share the line:
    setting one to another value than it has there is refused. Opening and closing it opens and closes nothing.
    """

    def __init__(self, line: SharedLine, timeout: float | None = None) -> None:
        super().__init__()
        self.name = self.port = self.portstr = line.name
        self.timeout: float | None = line.session.timeout_s if timeout is None else timeout
        self.write_timeout: float | None = None
        self.inter_byte_timeout: float | None = None
        self.exclusive: bool | None = None
        self.rts = self.dtr = True
        self.cts = self.dsr = self.cd = True
        self.ri = False
        self.break_condition = False
        self._session = line.session
        self._line = line.settings
        self._open = True

    def __repr__(self) -> str:
        return f"<SharedSerial {self.name!r}>"

    @property
    def is_open(self) -> bool:
        """Whether the driver thinks of it as open."""
        return self._open

    def open(self) -> None:
        """Nothing to do: the port is open already."""
        self._open = True

    def close(self) -> None:
        """Forget it for this driver; the port stays open for everybody else."""
        self._open = False

    def isOpen(self) -> bool:  # noqa: N802  # pyserial's old name
        """As `is_open`."""
        return self._open

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, size: int = 1) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]  # as pyserial's
        """Up to `size` bytes: fewer if the time-out passes first."""
        if size <= 0:
            return b""
        ends, found = self._deadline(), b""
        while len(found) < size:
            try:
                found += self._session.read(size - len(found), self._left_s(ends))
            except PortTimeoutError:
                break
            if ends.passed:
                break
        return found

    def read_until(self, expected: bytes = b"\n", size: int | None = None) -> bytes:
        """Everything up to and with `expected`, or `size` bytes, or what there is at the time-out."""
        ends, found = self._deadline(), b""
        if size is not None:
            while len(found) < size and not found.endswith(expected):
                byte = self.read(1)
                if not byte:
                    break
                found += byte
            return found
        while not found.endswith(expected):
            try:
                found += self._session.read_until(expected, self._left_s(ends))
            except PortTimeoutError:
                break
            if ends.passed:
                break
        return found

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line, its line feed included."""
        return self.read_until(b"\n", None if size is None or size < 0 else size)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """All lines until a time-out."""
        lines: list[bytes] = []
        while line := self.readline():
            lines.append(line)
            if hint is not None and 0 < hint <= sum(map(len, lines)):
                break
        return lines

    def read_all(self) -> bytes:
        """What has come, without waiting."""
        waiting = self.in_waiting
        return self._session.read(waiting, 0.0) if waiting else b""

    def readall(self) -> bytes:
        """Everything until a time-out."""
        found = b""
        while chunk := self.read(_CHUNK):
            found += chunk
            if len(chunk) < _CHUNK:
                break
        return found

    def readinto(self, buffer: Any, /) -> int:
        """Read into `buffer`; how many bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    @property
    def in_waiting(self) -> int:
        """How many bytes can be read without waiting."""
        return self._session.in_waiting

    def inWaiting(self) -> int:  # noqa: N802  # pyserial's old name
        """As `in_waiting`."""
        return self.in_waiting

    def reset_input_buffer(self) -> None:
        """Throw away what has come."""
        self._session.reset_input_buffer()

    flushInput = reset_input_buffer  # noqa: N815  # pyserial's old name

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, data: Any, /) -> int:
        """Write all of `data`; how many bytes."""
        return self._session.write(bytes(data))

    def writelines(self, lines: Iterable[Any], /) -> None:
        """Write all of them."""
        for line in lines:
            self.write(line)

    @property
    def out_waiting(self) -> int:
        """Always 0: a write returns when its bytes are with the port."""
        return 0

    def flush(self) -> None:
        """Nothing to wait for: a write returns when its bytes are with the port."""

    def reset_output_buffer(self) -> None:
        """Nothing waits there."""

    flushOutput = reset_output_buffer  # noqa: N815  # pyserial's old name

    def send_break(self, duration: float = 0.25) -> None:
        """Refused: a break would reach everybody on the line."""
        raise ConfigError(
            "a shared port sends no break", port=self.port, remedy="Give the instrument a port of its own."
        )

    # ── the line's settings ─────────────────────────────────────────────────────────────────────────────────────────

    def __getattr__(self, name: str) -> Any:
        if name in _LINE_SETTINGS:
            return self._line.get(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _LINE_SETTINGS and self._line.get(name) not in (None, value):
            raise ConfigError(
                f"the driver asks for {name} = {value!r}, but its port is shared and set to {self._line[name]!r}",
                port=self.port,
                remedy=f"Set {name} in [ports.{self.port}] if the driver is right.",
            )
        if name not in _LINE_SETTINGS:
            super().__setattr__(name, value)

    def get_settings(self) -> dict[str, Any]:
        """The line's settings and the time-outs, as pyserial names them."""
        times = ("timeout", "write_timeout", "inter_byte_timeout")
        return {**{key: getattr(self, key) for key in _LINE_SETTINGS}, **{key: getattr(self, key) for key in times}}

    def apply_settings(self, settings: dict[str, Any]) -> None:
        """Set each; a line setting that differs is refused."""
        for key, value in settings.items():
            setattr(self, key, value)

    def _deadline(self) -> Deadline:
        return Deadline(self.timeout)

    @staticmethod
    def _left_s(ends: Deadline) -> float:
        return min(ends.left_s, _FOREVER_S)
