"""PyMeasure instruments, unmodified, on a shared port.

An Instrument that is handed an Adapter discards the communication settings that it would have given to VISA
(terminators, time-out). They are often the only place where these are written down, so `_Listening`, put between the
driver's class and `Instrument` by inheritance, takes them from the very call that discards them. PyMeasure is imported
only once a class of it is to be constructed.
"""

# PyMeasure ships no type information; it is met through Any here and nowhere else.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUntypedBaseClass=false

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

from duodaq.clock import Deadline
from duodaq.errors import PortTimeoutError
from duodaq.model import InstrumentDefinition
from duodaq.v2.families._attributes import AttributeSurface
from duodaq.v2.families._family import descends
from duodaq.v2.families._line import SharedLine
from duodaq.v2.families._plain import PLACEHOLDER, check_arguments
from duodaq.v2.families._surface import Limit, Surface

_VISA_WRITE_TERMINATION = "\r\n"
_CHUNK = 4096


class PyMeasureFamily:
    """Subclasses of ``pymeasure.instruments.Instrument``, told by their bases' names."""

    name = "pymeasure"

    def claims(self, driver: Callable[..., Any]) -> bool:
        """Whether `driver` is a PyMeasure instrument class."""
        return descends(driver, "pymeasure", "Instrument")

    def construct(
        self, driver: Callable[..., Any], definition: InstrumentDefinition, line: SharedLine | None, limit: Limit
    ) -> Surface:
        """The instrument, on an Adapter over `line`; without one, on whatever its `adapter` argument names."""
        del limit  # its calls are its own
        # "It is not known whether this device support SCPI … inform the maintainers": nothing that a lab could act on.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"pymeasure\.instruments\.generic_types")
        arguments = dict(definition.args)
        if line is None:
            check_arguments(driver, definition, arguments)
            return AttributeSurface(driver(**arguments), _close)
        adapter = make_adapter(line)
        marked = [key for key, value in arguments.items() if value == PLACEHOLDER]
        arguments.update(dict.fromkeys(marked or [_first_parameter(driver)], adapter))
        check_arguments(driver, definition, arguments)
        return AttributeSurface(_listening(driver)(**arguments), _close)


def _close(driver: Any) -> None:
    """Close its adapter. Never its `shutdown`, which switches outputs off: that is for a safe action to say."""
    driver.adapter.close()


class SharedConnection:
    """What ``adapter.connection`` is on a shared port: the attributes of a PyVISA resource that drivers use.

    `timeout` is in milliseconds, as VISA's is; the terminators are text, None or empty for none.
    """

    def __init__(self, line: SharedLine) -> None:
        self.session = session = line.session
        self.write_termination: str | None = None
        self.read_termination: str | None = None
        self.encoding = "latin-1"
        self.query_delay = 0.0
        self.resource_name = f"duodaq::{session.name}"
        self._codec_end = line.write_terminator.decode("latin-1")
        self._timeout_s = session.timeout_s

    @property
    def timeout(self) -> float:
        """How long a read waits, in milliseconds."""
        return self._timeout_s * 1000

    @timeout.setter
    def timeout(self, milliseconds: float | None) -> None:
        self._timeout_s = 86400.0 if milliseconds is None else milliseconds / 1000
        self.session.timeout_s = self._timeout_s

    @property
    def timeout_s(self) -> float:
        """How long a read waits, in seconds."""
        return self._timeout_s

    def take_settings(self, settings: dict[str, Any]) -> None:
        """What the driver's class would have given to VISA: terminators, time-out, encoding."""
        for name in ("write_termination", "read_termination", "timeout", "encoding", "query_delay"):
            if settings.get(name) is not None:
                setattr(self, name, settings[name])

    def write(self, message: str) -> int:
        """Write text and the terminator."""
        return self.write_raw((message + self._write_end()).encode(self.encoding))

    def write_raw(self, data: bytes) -> int:
        """Write bytes as they are."""
        return self.session.write(data)

    def read(self, termination: str | None = None) -> str:
        """One reply, without its terminator if the driver told which."""
        end = termination or self.read_termination
        text = self.read_raw(None, end).decode(self.encoding)
        return text.removesuffix(end) if end else text

    def read_raw(self, size: int | None = None, termination: str | None = None) -> bytes:
        """One reply with its terminator."""
        del size  # VISA's chunk size; the broker has the whole reply
        end = (termination or self.read_termination or "\n").encode(self.encoding)
        return self.session.read_until(end, self._timeout_s)

    def read_bytes(self, count: int, chunk_size: int | None = None, break_on_termchar: bool = False) -> bytes:
        """Exactly `count` bytes, or as far as the terminator.

        Raises:
            PortTimeoutError: They did not all come.
        """
        del chunk_size
        ends, found = Deadline(self._timeout_s), b""
        end = (self.read_termination or "\n").encode(self.encoding)
        while len(found) < count and not (break_on_termchar and found.endswith(end)):
            step = 1 if break_on_termchar else count - len(found)
            found += self.session.read(step, ends.left_s)
        return found

    def read_until_quiet(self) -> bytes:
        """Everything until nothing more comes within the time-out; on a port with a codec, until the reply is whole."""
        found = b""
        while True:
            try:
                found += self.session.read(_CHUNK, self._timeout_s if not found else min(self._timeout_s, 0.1))
            except PortTimeoutError:
                if found:
                    return found
                raise
            if self.session.codec_name is not None and not self.session.in_waiting:
                return found

    def query(self, message: str, delay: float | None = None) -> str:
        """Write, then read."""
        del delay  # the reply is waited for, however long it takes to begin
        self.write(message)
        return self.read()

    def clear(self) -> None:
        """Throw away what has come."""
        self.session.reset_input_buffer()

    def flush(self, mask: Any = None) -> None:
        """Throw away what has come."""
        del mask
        self.session.reset_input_buffer()

    def close(self) -> None:
        """Nothing to close: the host closes the session, and the port stays open for everybody else."""

    def _write_end(self) -> str:
        if self.write_termination is not None:
            return self.write_termination
        return self._codec_end or _VISA_WRITE_TERMINATION


def make_adapter(line: SharedLine) -> Any:
    """A PyMeasure Adapter over a shared port."""
    return _adapter_class()(SharedConnection(line))


def _first_parameter(driver: Callable[..., Any]) -> str:
    """The parameter that takes the adapter: "adapter" by convention, whatever comes first otherwise."""
    names = list(inspect.signature(driver).parameters)
    return "adapter" if "adapter" in names or not names else names[0]


@functools.cache
def _adapter_class() -> Any:
    from pymeasure.adapters import Adapter

    class DuodaqAdapter(Adapter):
        """PyMeasure's view of a shared port."""

        def __init__(self, connection: SharedConnection) -> None:
            super().__init__()
            self.connection: Any = connection

        def _write(self, command: str, **kwargs: Any) -> None:
            self.connection.write(command, **kwargs)

        def _write_bytes(self, content: bytes, **kwargs: Any) -> None:
            self.connection.write_raw(content, **kwargs)

        def _read(self, **kwargs: Any) -> str:
            return self.connection.read(**kwargs)

        def _read_bytes(self, count: int, break_on_termchar: bool = False, **kwargs: Any) -> bytes:
            if count >= 0:
                return self.connection.read_bytes(count, break_on_termchar=break_on_termchar, **kwargs)
            if break_on_termchar:
                return self.connection.read_raw(None, **kwargs)
            return self.connection.read_until_quiet()

        def flush_read_buffer(self) -> None:
            self.connection.clear()

        def __repr__(self) -> str:
            return f"<DuodaqAdapter(port={self.connection.session.name!r})>"

    return DuodaqAdapter


@functools.cache
def _listening(driver: Any) -> Any:
    """`driver` with `_Listening` behind all its own bases, just before `Instrument`."""
    from pymeasure.instruments import Instrument

    class _Listening(Instrument):
        def __init__(self, adapter: Any, name: Any, *args: Any, **settings: Any) -> None:
            connection = getattr(adapter, "connection", None)
            if isinstance(connection, SharedConnection):
                for interface in ("asrl", "tcpip"):
                    connection.take_settings(settings.get(interface) or {})
                connection.take_settings(settings)
            super().__init__(adapter, name, *args, **settings)

    return type(driver.__name__, (driver, _Listening), {"__module__": driver.__module__, "__doc__": driver.__doc__})
