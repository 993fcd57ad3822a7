"""One resource of a VISA library, in a port worker: blocking calls, with what the library says put into few words."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Generator, Iterator
from typing import Any

from duodaq.clock import Deadline

_FIRST_CHUNK, _CHUNK = 1 << 14, 1 << 20
"""A read allocates all that it may get, with pyvisa-py 0.6 ms for the large one: few replies are worth that."""

_TERMCHAR = "\n"
_RX_END = 4
"""Why a read of VXI-11 ended: the message did."""
_MOST_MS = 2**31 - 1


class RefusalError(Exception):
    """A call that came to nothing; `kind` is one of those of `Failed`."""

    kind = "lost"


class LibraryError(RefusalError):
    """The resource is of no use any more."""


class LateError(RefusalError):
    """Nothing came in time."""

    kind = "timeout"


class UntakenError(RefusalError):
    """The device did not take a message in time."""

    kind = "untaken"


class UnsupportedError(RefusalError):
    """The library, or this kind of resource, cannot do that."""

    kind = "refused"


class NotOpenError(RefusalError):
    """It cannot be opened."""

    kind = "open"


class TakenError(RefusalError):
    """Somebody else has it, and does not share it."""

    kind = "busy"


def open_resource(name: str, library: str, attributes: dict[str, Any], timeout_s: float) -> VisaResource:
    """Open `name`, set `attributes`, and clear the device of what an owner before may have left.

    Raises:
        NotOpenError: It cannot be opened, or an attribute cannot be set; nothing is held.
        TakenError: It is locked.
    """
    resource = VisaResource(name, library, attributes)
    resource.open(timeout_s)
    try:
        with contextlib.suppress(UnsupportedError):
            resource.clear_device(timeout_s)
    except RefusalError as refusal:
        resource.close()
        raise NotOpenError(f"it opened and could not be cleared: {refusal}") from refusal
    return resource


class VisaResource:
    """A resource. `library` says, once it is open, what carries it."""

    def __init__(self, name: str, library: str, attributes: dict[str, Any]) -> None:
        self.library = library
        self._name = name
        self._wanted = library
        self._attributes = attributes
        self._resource: Any = None
        self._timeout_ms = -1
        self._ended = False

    def open(self, timeout_s: float) -> None:
        """Open it; see `open_resource`."""
        try:
            import pyvisa
        except ImportError:
            raise NotOpenError("VISA needs PyVISA, which is not installed: pip install duodaq[visa]") from None
        from pyvisa.constants import StatusCode

        try:
            manager = pyvisa.ResourceManager(self._wanted)
            self.library = f"{_backend(manager)} {manager.visalib.library_path}".strip()
            self._resource = manager.open_resource(self._name, open_timeout=round(timeout_s * 1000))
        except pyvisa.VisaIOError as error:
            taken = error.error_code in (StatusCode.error_resource_busy, StatusCode.error_resource_locked)
            raise (TakenError if taken else NotOpenError)(_words(error)) from error
        except Exception as error:
            raise NotOpenError(_words(error)) from error
        self._timeout_ms = -1
        try:
            for key, value in self._attributes.items():
                if not hasattr(self._resource, key):
                    raise NotOpenError(f"PyVISA knows no attribute {key!r} of this resource")
                setattr(self._resource, key, value)
            if not self._marks_end:
                self._resource.read_termination = _TERMCHAR
        except Exception as error:
            self.close()
            raise error if isinstance(error, RefusalError) else NotOpenError(_words(error)) from error
        self._note_ends()

    def _note_ends(self) -> None:
        """Keep what pyvisa-py's VXI-11 does not tell: that a message which just fills a read ends there."""
        with contextlib.suppress(AttributeError, KeyError):  # another library has nothing of that kind
            interface = self._resource.visalib.sessions[self._resource.session].interface
            device_read = interface.device_read

            def noting(*args: Any) -> Any:
                answer = device_read(*args)
                self._ended = bool(answer[1] & _RX_END)
                return answer

            interface.device_read = noting

    @property
    def _marks_end(self) -> bool:
        """Whether messages on this line have an END; a stream has none."""
        return self._resource.resource_class == "INSTR" and self._resource.interface_type.name != "asrl"

    def close(self) -> None:
        """Close it, whatever the library says to that. Idempotent."""
        resource, self._resource = self._resource, None
        if resource is not None:
            with contextlib.suppress(Exception):  # whatever the library raises, the resource is given up
                resource.close()

    def write(self, data: bytes, timeout_s: float) -> None:
        """Write one message."""
        with self._calling(timeout_s) as resource:
            resource.write_raw(data)

    def read(self, timeout_s: float, piece: Callable[[bytes], None]) -> tuple[bytes, bool]:
        """The next message, up to its END; long ones come in pieces of which the last is returned.

        Returns:
            The last piece, and whether the line marked an END behind it.
        """
        deadline, chunk, self._ended = Deadline(timeout_s), _FIRST_CHUNK, False
        while True:
            with self._calling(deadline.left_s) as resource:
                from pyvisa.constants import StatusCode

                more = StatusCode.success_max_count_read
                with resource.ignore_warning(more, StatusCode.success_termination_character_read):
                    data, status = resource.visalib.read(resource.session, chunk)
            if status != more or len(data) < chunk or self._ended:
                return bytes(data), self._marks_end
            piece(bytes(data))
            chunk = _CHUNK

    def clear(self, timeout_s: float) -> None:
        """Empty the buffers of both ends: by device clear, else by closing and opening it again."""
        try:
            self.clear_device(timeout_s)
        except RefusalError:
            self.close()
            self.open(timeout_s)

    def clear_device(self, timeout_s: float) -> None:
        """Device clear, as the library does it."""
        with self._calling(timeout_s) as resource:
            resource.clear()

    def poll(self, timeout_s: float) -> int:
        """The status byte, by a serial poll or what the interface has in its place."""
        with self._calling(timeout_s) as resource:
            return int(resource.read_stb())

    def descriptors(self) -> Iterator[int]:
        """The sockets that carry it, where the library is pyvisa-py."""
        resource = self._resource
        with contextlib.suppress(Exception):  # another library keeps none that could be seen; or it is closed meanwhile
            session = resource.visalib.sessions[resource.session]
            for owner, name in ((session, "interface"), *((session.interface, n) for n in ("sock", "_sync", "_async"))):
                found = getattr(owner, name, None)
                if isinstance(found, socket.socket) and found.fileno() >= 0:
                    yield found.fileno()

    @contextlib.contextmanager
    def _calling(self, timeout_s: float) -> Generator[Any]:
        """The resource, with that time-out; what it raises as a RefusalError."""
        from pyvisa import VisaIOError
        from pyvisa.constants import StatusCode

        resource = self._resource
        if resource is None:
            raise LibraryError("it is closed")
        try:
            timeout_ms = min(max(1, round(timeout_s * 1000)), _MOST_MS)
            if timeout_ms != self._timeout_ms:
                resource.timeout = self._timeout_ms = timeout_ms
            yield resource
        except VisaIOError as error:
            if error.error_code == StatusCode.error_timeout:
                raise LateError(_words(error)) from error
            if error.error_code == StatusCode.error_nonsupported_operation:
                raise UnsupportedError(_words(error)) from error
            raise LibraryError(_words(error)) from error
        except (NotImplementedError, AttributeError) as error:
            raise UnsupportedError(_words(error)) from error
        except TimeoutError as error:
            raise LateError(_words(error)) from error
        except Exception as error:
            raise LibraryError(_words(error)) from error


def _backend(manager: Any) -> str:
    return type(manager.visalib).__module__.partition(".")[0].replace("_", "-")


def _words(error: BaseException) -> str:
    abbreviation = getattr(error, "abbreviation", "")
    if abbreviation:
        return f"{abbreviation}: {getattr(error, 'description', '')}".rstrip(": ")
    return f"{type(error).__name__}: {error}"
